"""The engines that are compared, and one inference of each."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dirnet_convert.recipe import Rest
from dirnet_convert.runtime.session import Kernels, load_session

if TYPE_CHECKING:
    import onnxruntime


class EngineKind(enum.StrEnum):
    """One row of the comparison: in ONNX Runtime, BINARY with dirnet's kernels in it, or in OpenVINO."""

    FP32 = "fp32"
    INT8 = "int8"
    BINARY = "binary"
    STOCK = "stock"
    OPENVINO_FP32 = "openvino-fp32"
    OPENVINO = "openvino"

    @property
    def twin(self) -> EngineKind | None:
        """The engine in ONNX Runtime with the same network as this one in OpenVINO; None for those there."""
        return _TWINS.get(self)


_TWINS = {EngineKind.OPENVINO_FP32: EngineKind.FP32, EngineKind.OPENVINO: EngineKind.BINARY}


TITLES = {
    EngineKind.FP32: "FP32",
    EngineKind.INT8: "INT8",
    EngineKind.BINARY: "binary",
    EngineKind.STOCK: "binary, stock",
    EngineKind.OPENVINO_FP32: "OpenVINO FP32",
    EngineKind.OPENVINO: "OpenVINO binary",
}
_INT8_REST_TITLES = {
    EngineKind.BINARY: "binary + INT8",
    EngineKind.STOCK: "stock + INT8",
    EngineKind.OPENVINO: "OpenVINO + INT8",
}
DEFAULT_ENGINES = (EngineKind.FP32, EngineKind.INT8, EngineKind.BINARY)


def engine_title(kind: EngineKind, rest: Rest) -> str:
    """Return what ``kind`` is called where the binary model stores its other layers as ``rest``."""
    return (_INT8_REST_TITLES if rest is Rest.INT8 else TITLES).get(kind, TITLES[kind])


def open_engine(
    kind: EngineKind, model: Path, threads: int, profile_prefix: Path | None = None
) -> onnxruntime.InferenceSession:
    """Open ``model`` as ``kind``, one of ONNX Runtime's, runs it; the errors are load_session's."""
    kernels = Kernels.DIRNET if kind is EngineKind.BINARY else Kernels.STOCK
    return load_session(model, threads=threads, kernels=kernels, profile_prefix=profile_prefix)


def random_inputs(
    session: onnxruntime.InferenceSession, batch: int, seed: int, bit_channels: int = 64
) -> dict[str, np.ndarray]:
    """Return normal float32 inputs, free dimensions ``batch``; uint64 ones: ``bit_channels`` random bits."""
    generator = np.random.default_rng(seed)
    feeds = {}
    for entry in session.get_inputs():
        shape = [size if isinstance(size, int) else batch for size in entry.shape]
        if entry.type == "tensor(uint64)":
            words = generator.integers(0, 2**64, shape, dtype=np.uint64)
            # The spare bits of the last word are 0 by convention, and the kernels insist on it.
            words[..., -1] >>= np.uint64(-bit_channels % 64)
            feeds[entry.name] = words
        else:
            feeds[entry.name] = generator.standard_normal(shape, dtype=np.float32)
    return feeds


def bound_call(session: onnxruntime.InferenceSession, feeds: dict[str, np.ndarray]) -> Callable[[], None]:
    """Return one inference with inputs and outputs bound beforehand, so that Python adds next to nothing."""
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, value)
    for entry in session.get_outputs():
        binding.bind_output(entry.name, "cpu")
    return lambda: session.run_with_iobinding(binding)
