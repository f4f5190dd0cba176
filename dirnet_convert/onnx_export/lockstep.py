"""PyTorch's network run on the very bits that another engine fed to each binary layer.

Left to itself, a value next to a threshold falls on either side by the rounding of the float layers, and the
two networks drift apart through no fault. With the bits taken over, all that is left is rounding, and each
difference points at its layer.
"""

from __future__ import annotations

import copy
import enum
from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dirnet_convert.binarize.layers import BinaryLayer

Call = tuple[str, int]


class Follow(enum.Enum):
    """Which bits the layers of PyTorch's network go on with."""

    GIVEN = "given"
    OWN = "own"


@dataclass(frozen=True)
class BitComparison:
    """The bits that a layer would have chosen against those that it was given.

    ``worst_distance`` is the largest |x - threshold| of a differing bit over the root mean square of x.
    """

    bits: int
    flipped: int
    worst_distance: float


@dataclass
class LockstepResult:
    """What the network returned, how each layer's own bits compare, and what the watched modules returned."""

    output: Tensor | tuple[Tensor, ...]
    bits: dict[Call, BitComparison] = field(default_factory=dict)
    outputs: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))


def run_lockstep(
    student: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    given: dict[Call, Tensor],
    *,
    follow: Follow = Follow.GIVEN,
    watched: frozenset[str] = frozenset(),
) -> LockstepResult:
    """Run ``student`` on images (N, C, H, W), or on several inputs, comparing its bits with those ``given``.

    With ``Follow.GIVEN`` each layer goes on with the given signs. The outputs of ``watched`` ones are kept.
    """
    # The copy's layers get other methods and hooks; their tensors are only read, so they need no copy.
    held = [tensor for tensor in (*student.parameters(), *student.buffers()) if tensor.device.type == "cpu"]
    network = copy.deepcopy(student, {id(tensor): tensor for tensor in held}).cpu().eval()
    bits: dict[Call, BitComparison] = {}
    outputs: dict[str, list[Tensor]] = defaultdict(list)
    for path, module in network.named_modules():
        if isinstance(module, BinaryLayer):
            _take_over(module, path, given, follow, bits)
        if path in watched:
            # Cloned, since an activation in place may overwrite it.
            module.register_forward_hook(
                lambda _m, _i, output, path=path: outputs[path].append(output.clone())
            )
    with torch.no_grad():
        output = network(*inputs) if isinstance(inputs, tuple) else network(inputs)
    return LockstepResult(output, bits, outputs)


def _take_over(
    layer: BinaryLayer, path: str, given: dict[Call, Tensor], follow: Follow, bits: dict[Call, BitComparison]
) -> None:
    own_choice = layer.binarize_input
    calls = 0

    def binarize_input(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        own = own_choice(x)
        signs = given.get((path, calls))
        if signs is None or signs.shape != own.shape:
            return own
        bits[path, calls] = compare_bits(x, layer.aligned_threshold(x), own, signs)
        return signs if follow is Follow.GIVEN else own

    layer.binarize_input = binarize_input


def compare_bits(x: Tensor, threshold: Tensor, own: Tensor, given: Tensor) -> BitComparison:
    """Compare the signs that ``x`` has at ``threshold`` with the ``given`` ones, all shaped alike."""
    flipped = own != given
    count = int(flipped.sum())
    if count == 0:
        return BitComparison(own.numel(), 0, 0.0)
    distance = (x - threshold).abs()[flipped].max()
    spread = x.square().mean().sqrt()
    return BitComparison(own.numel(), count, float(distance / spread) if spread > 0 else float("inf"))
