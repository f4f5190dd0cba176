"""Compares one engine's run of an exported model with PyTorch, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from dirnet_convert.binarize.activations import ShiftedPReLU
from dirnet_convert.onnx_export.lockstep import Follow, LockstepResult, run_lockstep
from dirnet_convert.onnx_export.operators import unpack_bits
from dirnet_convert.onnx_export.probe import (
    BinaryNode,
    Ends,
    LayerValues,
    expected_values,
    open_probe,
    run_probe,
    signs_of,
)
from dirnet_convert.onnx_export.verify_report import (
    ENGINE_NAMES,
    EngineReport,
    ExportMismatch,
    LayerReport,
    Tolerances,
)
from dirnet_convert.runtime.session import Kernels

# Modules that compute nothing but what their class says; a subclass may add an activation.
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.PReLU, ShiftedPReLU)


def relative_error(value: Tensor, reference: Tensor) -> float:
    """Return the largest |difference| over the root mean square of ``reference``.

    It is infinite where the shapes differ or a difference is NaN.
    """
    if value.shape != reference.shape:
        return float("inf")
    if value.numel() == 0:
        return 0.0
    difference = float((value - reference).abs().max())
    spread = float(reference.square().mean().sqrt())
    if difference == 0:
        return 0.0
    return difference / spread if spread > 0 and difference == difference else float("inf")


def _tensors(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (output,) if isinstance(output, Tensor) else output


@dataclass
class _Seen:
    """What was seen of one layer so far."""

    bits: int = 0
    flipped: int = 0
    free_flipped: int = 0
    error: float | None = None


class EngineCheck:
    """One engine over all images: per layer and in the end, the worst that was seen."""

    def __init__(
        self,
        student: nn.Module,
        model: onnx.ModelProto,
        nodes: list[BinaryNode],
        kernels: Kernels,
        limits: Tolerances,
        threads: int | None,
        ends: Ends,
    ) -> None:
        self._student, self._nodes, self._kernels, self._limits = student, nodes, kernels, limits
        self._modules = dict(student.named_modules())
        self._ends = ends
        self._session = open_probe(model, nodes, kernels, threads, (*ends.inputs, *ends.outputs))
        self._seen = {node.name: _Seen() for node in nodes}
        self._error = self._free_error = 0.0
        self._agreeing = self._images = 0

    def add(self, images: Tensor) -> None:
        """Run ``images`` (N, C, H, W) on both sides and compare."""
        values = run_probe(self._session, images)
        given = {(node.module, node.call): signs_of(node, values[node.inputs["B"]]) for node in self._nodes}
        watched = {name for node in self._nodes for name in (node.affine_module, node.output_module) if name}
        # What a module takes from inside the model is the engine's own, so that rounding does not add up.
        inputs = (images, *(torch.from_numpy(values[name]) for name in self._ends.inputs[1:]))
        followed = run_lockstep(self._student, inputs, given, watched=frozenset(watched))
        for node in self._nodes:
            self._compare_layer(node, values, followed)
        outputs = tuple(torch.from_numpy(values[name]) for name in self._ends.outputs)
        self._error = max(self._error, self._compare_outputs(outputs, _tensors(followed.output)))
        self._compare_free(inputs, given, outputs)

    def _compare_layer(
        self, node: BinaryNode, values: dict[str, np.ndarray], followed: LockstepResult
    ) -> None:
        compared = followed.bits.get((node.module, node.call))
        if compared is None:
            raise ExportMismatch(node.name, "PyTorch's network calls this layer differently")
        seen = self._seen[node.name]
        seen.bits += compared.bits
        seen.flipped += compared.flipped
        where = f"with {ENGINE_NAMES[self._kernels]}"
        if compared.flipped and not compared.worst_distance <= self._limits.rounding:
            raise ExportMismatch(
                node.name,
                f"{compared.flipped} of {compared.bits} bits that it reads differ {where}, up to "
                f"{compared.worst_distance:.3g} of the inputs' root mean square away from the threshold",
            )
        if compared.flipped > self._limits.flipped_share * compared.bits:
            raise ExportMismatch(
                node.name, f"{compared.flipped} of {compared.bits} bits that it reads differ {where}"
            )
        expected = expected_values(node, self._modules[node.module].binary_weight(), values)
        self._compare_operator(node, expected, values, where)
        for path, kinds, tensor in (
            (node.affine_module, _NORMS, expected.affine),
            (node.output_module, _ACTIVATIONS, expected.output),
        ):
            error = self._module_error(node, path, kinds, tensor, followed)
            if error is None:
                continue
            seen.error = max(seen.error or 0.0, error)
            if not error <= self._limits.rounding:
                raise ExportMismatch(
                    node.name,
                    f"its values differ from those of {path} by {error:.3g} of their root mean square",
                )

    def _compare_operator(
        self, node: BinaryNode, expected: LayerValues, values: dict[str, np.ndarray], where: str
    ) -> None:
        if "Y" in node.outputs:
            got = torch.from_numpy(values[node.outputs["Y"]])
            error = relative_error(got, expected.output)
            if not error <= self._limits.operator:
                raise ExportMismatch(
                    node.name,
                    f"for the same bits its values differ by {error:.3g} of their root mean square {where}",
                )
        if "Bo" in node.outputs:
            channels = node.constants["scale"].size
            got = torch.from_numpy(unpack_bits(values[node.outputs["Bo"]], channels) > 0)
            wrong = int((got != expected.bits).sum()) if got.shape == expected.bits.shape else got.numel()
            if wrong:
                raise ExportMismatch(
                    node.name, f"for the same bits {wrong} of its {got.numel()} bits differ {where}"
                )

    def _module_error(
        self, node: BinaryNode, path: str, kinds: tuple[type, ...], tensor: Tensor, followed: LockstepResult
    ) -> float | None:
        calls = followed.outputs.get(path, [])
        if path == node.module:
            own = calls[node.call - 1]
        elif len(calls) == 1 and type(self._modules[path]) in kinds:
            own = calls[0]
        else:
            return None
        return relative_error(tensor, own.permute(0, 2, 3, 1) if node.is_convolution else own)

    def _compare_outputs(self, outputs: tuple[Tensor, ...], own: tuple[Tensor, ...]) -> float:
        worst = 0.0
        for name, output, reference in zip(self._ends.outputs, outputs, own, strict=True):
            error = relative_error(output, reference)
            worst = max(worst, error)
            if not error <= self._limits.rounding:
                last = self._nodes[-1].name if self._nodes else "the input"
                where = f"the output (after {last})" if len(outputs) == 1 else f"the output '{name}'"
                raise ExportMismatch(
                    where,
                    f"it differs by {error:.3g} of its root mean square with {ENGINE_NAMES[self._kernels]}",
                )
        return worst

    def _compare_free(
        self,
        inputs: tuple[Tensor, ...],
        given: dict[tuple[str, int], Tensor],
        outputs: tuple[Tensor, ...],
    ) -> None:
        free = run_lockstep(self._student, inputs, given, follow=Follow.OWN)
        own = _tensors(free.output)
        for node in self._nodes:
            self._seen[node.name].free_flipped += free.bits[node.module, node.call].flipped
        self._free_error = max(self._free_error, *map(relative_error, outputs, own))
        if len(outputs) == 1:
            self._agreeing += int((outputs[0].argmax(-1) == own[0].argmax(-1)).sum())
            self._images += len(inputs[0])

    def layer_report(self, node: BinaryNode) -> LayerReport:
        """Return what was seen of ``node``."""
        seen = self._seen[node.name]
        bits = max(1, seen.bits)
        return LayerReport(node.name, node.op_type, seen.flipped / bits, seen.free_flipped / bits, seen.error)

    def report(self) -> EngineReport:
        """Return how the outputs compare."""
        agreement = self._agreeing / self._images if self._images else None
        return EngineReport(self._kernels, self._error, self._free_error, agreement)
