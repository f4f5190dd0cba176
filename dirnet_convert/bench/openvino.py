"""OpenVINO as the rival: the same networks there, first compared in what they compute, then timed."""

from __future__ import annotations

import enum
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dirnet_convert.bench.layers import CONV_PREFIX
from dirnet_convert.bench.profile import DOMAIN
from dirnet_convert.errors import DirnetError
from dirnet_convert.runtime.model_file import read_model
from dirnet_convert.runtime.openvino import (
    binary_convolutions,
    compile_for_cpu,
    read_for_cpu,
    require_openvino,
)

if TYPE_CHECKING:
    import onnxruntime
    import openvino

CHECKED_INPUTS = 8
# As an export's own tolerance: what the same network differs by in float32, over the outputs' root mean
# square.
MOST_DIFFERENCE = 1e-3
_WEIGHTS_SUFFIX = ".bin"


class Demand(enum.Enum):
    """On which inputs two runtimes have to agree."""

    EVERY_INPUT = "every input"
    """Float networks: the order of their sums is all that differs."""
    ANY_INPUT = "any input"
    """Binary ones: a value beside a threshold may fall on its other side in one of the two, which is seen in
    that input alone."""
    NONE = "none"
    """With INT8 beside the bits: a clipped activation lies between two bytes, each runtime rounds it its own
    way, and the bits behind go their own ways."""


@dataclass(frozen=True)
class RivalCheck:
    """How a rival's outputs compare with ours, and what it made of the binary layers.

    The differences are |difference| of an output over the outputs' root mean square, one for each input.
    ``kernels`` counts the binary convolutions by the kernel that runs them; ``float_layers`` are those of our
    binary layers that the rival computes in float.
    """

    inputs: int
    smallest: float
    median: float
    largest: float
    kernels: dict[str, int]
    float_layers: tuple[str, ...]


def bound_openvino_call(compiled: openvino.CompiledModel, images: np.ndarray) -> Callable[[], object]:
    """Return one inference of ``images`` (N, C, H, W), set beforehand, so that Python adds little."""
    openvino = require_openvino()
    request = compiled.create_infer_request()
    # A copy of the tensor's own: shared memory would have to outlive the call.
    request.set_input_tensor(openvino.Tensor(images))
    return lambda: request.infer(share_outputs=True)


def check_rival(
    ours: onnxruntime.InferenceSession,
    our_path: Path,
    path: Path,
    threads: int,
    inputs: list[np.ndarray],
    demand: Demand,
) -> RivalCheck:
    """Compare the rival's model at ``path`` with our session of ``our_path`` on ``inputs`` (N, C, H, W) each.

    Raises:
        DirnetError: it computes something else, or does not run.
    """
    compiled = compile_for_cpu(path, threads, batch=len(inputs[0]))
    name = ours.get_inputs()[0].name
    differences = [_difference(compiled(images)[0], ours.run(None, {name: images})[0]) for images in inputs]
    agreeing = [difference <= MOST_DIFFERENCE for difference in differences]
    enough = {Demand.EVERY_INPUT: all(agreeing), Demand.ANY_INPUT: any(agreeing), Demand.NONE: True}
    if not enough[demand]:
        raise DirnetError(
            f"OpenVINO's {path.name} and {our_path.name} do not compute the same: their outputs differ by up "
            f"to {max(differences):.3g} of their root mean square; export the run again."
        )
    return RivalCheck(
        inputs=len(inputs),
        smallest=min(differences),
        median=statistics.median(differences),
        largest=max(differences),
        kernels=binary_convolutions(compiled),
        float_layers=_float_layers(our_path, path),
    )


def file_bytes(path: Path) -> int:
    """Return the size of a model's file, for a .xml with the weights beside it."""
    weights = path.with_suffix(_WEIGHTS_SUFFIX)
    return path.stat().st_size + (weights.stat().st_size if path.suffix == ".xml" else 0)


def _difference(value: np.ndarray, own: np.ndarray) -> float:
    if value.shape != own.shape:
        return float("inf")
    largest, spread = float(np.abs(value - own).max()), float(np.sqrt(np.square(own).mean()))
    if largest == 0:
        return 0.0
    return largest / spread if spread > 0 and largest == largest else float("inf")


def _float_layers(our_path: Path, path: Path) -> tuple[str, ...]:
    on_bits = {
        node.get_friendly_name()
        for node in read_for_cpu(path).get_ops()
        if node.get_type_name() == "BinaryConvolution"
    }
    graph = read_model(our_path).graph
    return tuple(
        node.name
        for node in graph.node
        if node.domain == DOMAIN
        and (node.op_type.startswith(CONV_PREFIX) or node.op_type == "BinaryGemm")
        and node.name not in on_bits
    )
