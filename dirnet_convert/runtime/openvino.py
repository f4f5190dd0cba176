"""OpenVINO's processor plug-in, set up so that a comparison with it is fair: the rival, not the engine."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from dirnet_convert.errors import DirnetError, UsageError

if TYPE_CHECKING:
    import openvino

_DEVICE = "CPU"
_BINARY = "BinaryConvolution"
# The pixels of a row that its kernel computes at a time, with AVX-512 and without: it refuses to pad by more.
_WIDE_SIDE_PADDING, _NARROW_SIDE_PADDING = 4, 2


def require_openvino() -> ModuleType:
    """Return the package openvino; raises UsageError where it is not installed."""
    try:
        import openvino
    except ImportError:
        raise UsageError("OpenVINO is not installed here: pip install 'dirnet-convert[bench]'.") from None
    return openvino


@contextlib.contextmanager
def runtime_sentence(what: str) -> Iterator[None]:
    """Turn OpenVINO's exceptions into a DirnetError that begins with ``what``."""
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # The first lines say where in its sources the error arose.
        raise DirnetError(f"{what}: {lines[-1].rstrip('.') if lines else 'no reason given'}.") from error


def read_for_cpu(path: Path) -> openvino.Model:
    """Read a model from its .xml file, or from an ONNX file of standard operators.

    Raises:
        UsageError: openvino is not installed, or the file does not exist.
        DirnetError: OpenVINO cannot read it.
    """
    openvino = require_openvino()
    if not path.is_file():
        raise UsageError(f"There is no model file {path}; check the path.")
    with runtime_sentence(f"OpenVINO cannot read {path.name}"):
        return openvino.Core().read_model(path)


def compile_for_cpu(model: openvino.Model | Path, threads: int, batch: int = 1) -> openvino.CompiledModel:
    """Compile a model (or its file) for ``batch`` images at a time and ``threads`` threads, in float32.

    Raises:
        UsageError: openvino is not installed, or the file does not exist.
        DirnetError: the model does not take this batch, or OpenVINO cannot run it.
    """
    openvino = require_openvino()
    if isinstance(model, Path):
        model = read_for_cpu(model)
    shape = model.input(0).get_partial_shape()
    if shape[0] != batch:
        shape[0] = batch
        with runtime_sentence(f"OpenVINO's model does not take batches of {batch}"):
            model.reshape(shape)
    # One inference at a time with all threads, float32 as elsewhere, and threads that the system places,
    # as those of the other engines.
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_HYPER_THREADING": True,
        "ENABLE_CPU_PINNING": False,
    }
    with runtime_sentence("OpenVINO cannot run this network"):
        compiled = openvino.Core().compile_model(model, _DEVICE, settings)
    taken = compiled.get_property("INFERENCE_NUM_THREADS")
    if taken != threads:
        raise DirnetError(
            f"OpenVINO takes {taken} threads here and not {threads}; no fair comparison is left."
        )
    return compiled


def most_side_padding() -> int:
    """Return by how many pixels BinaryConvolution pads the left and the right at most on this processor.

    Raises:
        UsageError: openvino is not installed.
    """
    openvino = require_openvino()
    from openvino import opset1

    x = opset1.parameter([1, 8, 8, 8], np.float32)
    bounds = (np.array([value], np.float32) for value in (0, 0, 0, 1))
    weights = openvino.op.Constant(openvino.Type.u1, openvino.Shape([8, 8, 5, 5]), [0] * 1600)
    padding = [_WIDE_SIDE_PADDING, _WIDE_SIDE_PADDING]
    bits = opset1.fake_quantize(x, *bounds, 2)
    made = opset1.binary_convolution(bits, weights, [1, 1], padding, padding, [1, 1], "xnor-popcount", 0.0)
    try:
        openvino.Core().compile_model(openvino.Model([made], [x], "padding"), _DEVICE)
    except RuntimeError:
        return _NARROW_SIDE_PADDING
    return _WIDE_SIDE_PADDING


def binary_convolutions(compiled: openvino.CompiledModel) -> dict[str, int]:
    """Return how many BinaryConvolution nodes the plug-in runs with each of its kernels, by its own word."""
    kernels: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        if facts["layerType"].astype(str) == _BINARY:
            kernels[facts["primitiveType"].astype(str)] += 1
    return dict(kernels)
