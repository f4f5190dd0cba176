"""Checks an OpenVINO file against PyTorch: layer by layer on the bits that it chose, then left alone."""

from __future__ import annotations

import copy
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dirnet_convert.binarize.held_weights import held_weights
from dirnet_convert.onnx_export.engine_check import relative_error
from dirnet_convert.onnx_export.labels import layer_call
from dirnet_convert.onnx_export.lockstep import BitComparison, Call, LockstepResult, run_lockstep
from dirnet_convert.onnx_export.openvino.lower import LoweredLayer
from dirnet_convert.onnx_export.verify_report import ExportMismatch, Tolerances
from dirnet_convert.runtime.openvino import binary_convolutions, compile_for_cpu, read_for_cpu

if TYPE_CHECKING:
    import openvino

# The key of a model's own output, whatever it is called.
OUTPUT = ""


@dataclass(frozen=True)
class OpenVinoReport:
    """What was compared, how close it was, and how OpenVINO computes each binary layer.

    ``error``: worst |difference| of a logit over the logits' root mean square, PyTorch following OpenVINO's
    bits; ``free_error`` and ``top1_agreement``: with each on its own; ``flipped_share``: bits on the other
    side although PyTorch followed up to there, the worst layer; ``kernels``: how many BinaryConvolution nodes
    the plug-in runs with each of its kernels.
    """

    images: int
    layers: tuple[LoweredLayer, ...]
    kernels: dict[str, int]
    error: float
    free_error: float
    flipped_share: float
    top1_agreement: float
    tolerances: Tolerances


def verify_openvino(
    student: nn.Module,
    path: Path,
    layers: tuple[LoweredLayer, ...],
    images: Tensor,
    tolerances: Tolerances | None = None,
) -> OpenVinoReport:
    """Compare the file at ``path``, whose binary layers are ``layers``, on ``images`` (N, C, H, W).

    Raises:
        ExportMismatch: naming the first layer, in the graph's order, that differs beyond ``tolerances``.
        DirnetError: OpenVINO cannot run the file.
    """
    limits = tolerances or Tolerances()
    reference = copy.deepcopy(student).cpu().eval()
    # The values that are binarized come out of a second copy, which changes what the plug-in can fuse. The
    # file itself must then give what the copy gives.
    probed = read_for_cpu(path)
    probed.add_outputs(list(dict.fromkeys(layer.input for layer in layers)))
    probe, compiled = compile_for_cpu(probed, threads=1), compile_for_cpu(path, threads=1)
    flips: dict[Call, BitComparison] = {}
    errors, free_errors, copy_errors, agreeing = [], [], [], 0
    with held_weights(reference):
        for image in images.detach().cpu().float().split(1):
            values = _run(probe, image)
            given = {layer_call(layer.name): _signs(layer, values[layer.input]) for layer in layers}
            followed = run_lockstep(reference, image, given)
            _check_bits(layers, followed, limits, flips)
            probe_output = values[OUTPUT]
            errors.append(relative_error(probe_output, followed.output))
            if not errors[-1] <= limits.rounding:
                raise ExportMismatch(
                    "the output", f"with OpenVINO it differs by {errors[-1]:.3g} of its root mean square"
                )
            output = _run(compiled, image)[OUTPUT]
            copy_errors.append(relative_error(output, probe_output))
            with torch.no_grad():
                own = reference(image)
            free_errors.append(relative_error(output, own))
            agreeing += int((output.argmax(-1) == own.argmax(-1)).sum())
    # A value next to a threshold may fall on either side in the one or the other, and an image or two differ.
    if not statistics.median(copy_errors) <= limits.rounding:
        raise ExportMismatch(
            "the output",
            f"OpenVINO's fused graph differs by {statistics.median(copy_errors):.3g} of its root mean square "
            "from its own graph layer by layer",
        )
    return OpenVinoReport(
        images=len(images),
        layers=layers,
        kernels=binary_convolutions(compiled),
        error=max(errors),
        free_error=max(free_errors),
        flipped_share=max((compared.flipped / compared.bits for compared in flips.values()), default=0.0),
        top1_agreement=agreeing / len(images),
        tolerances=limits,
    )


def _run(compiled: openvino.CompiledModel, image: Tensor) -> dict[str, Tensor]:
    """Return every output for ``image`` by each of its names, the first one also as OUTPUT."""
    results = compiled(image.numpy())
    named = {name: torch.from_numpy(results[port].copy()) for port in compiled.outputs for name in port.names}
    return {**named, OUTPUT: torch.from_numpy(results[0].copy())}


def _signs(layer: LoweredLayer, value: Tensor) -> Tensor:
    return torch.where(value >= torch.from_numpy(layer.threshold), 1.0, -1.0)


def _check_bits(
    layers: tuple[LoweredLayer, ...],
    followed: LockstepResult,
    limits: Tolerances,
    seen: dict[Call, BitComparison],
) -> None:
    for layer in layers:
        call = layer_call(layer.name)
        compared = followed.bits.get(call)
        if compared is None:
            raise ExportMismatch(layer.name, "PyTorch's network calls this layer differently")
        before = seen.get(call, BitComparison(0, 0, 0.0))
        seen[call] = total = BitComparison(
            before.bits + compared.bits,
            before.flipped + compared.flipped,
            max(before.worst_distance, compared.worst_distance),
        )
        far = total.flipped and not total.worst_distance <= limits.rounding
        if far or compared.flipped > limits.flipped_share * compared.bits:
            raise ExportMismatch(
                layer.name,
                f"with OpenVINO {compared.flipped} of {compared.bits} bits that it reads differ, up to "
                f"{compared.worst_distance:.3g} of the inputs' root mean square away from the threshold",
            )
