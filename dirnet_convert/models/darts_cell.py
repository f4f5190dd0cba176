"""A cell of DARTS and the operations on its edges."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dirnet_convert.models.darts_genotype import CellPlan, Operation


def pointwise(in_channels: int, channels: int) -> nn.Sequential:
    """Build ReLU, 1x1 convolution and batch norm: (N, in_channels, H, W) to (N, channels, H, W)."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    )


def _filtered(channels: int, stride: int, dilation: int) -> list[nn.Module]:
    """Return the layers of ReLU, 3x3 depthwise and 1x1 convolution, and batch norm."""
    return [
        nn.ReLU(),
        nn.Conv2d(
            channels,
            channels,
            3,
            stride=stride,
            padding=dilation,
            dilation=dilation,
            groups=channels,
            bias=False,
        ),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    ]


class FactorizedReduce(nn.Module):
    """Halves the resolution with two 1x1 convolutions, one on the even pixels and one on the odd."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.activation = nn.ReLU()
        self.even = nn.Conv2d(in_channels, channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, channels - channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) with even H and W to (N, channels, H / 2, W / 2)."""
        x = self.activation(x)
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))


def _build(operation: Operation, channels: int, stride: int) -> nn.Module:
    if operation is Operation.MAX_POOL_3X3:
        return nn.MaxPool2d(3, stride=stride, padding=1)
    if operation is Operation.SEPARABLE_3X3:
        # Separable convolutions are applied twice, the stride in the first (section 3.1).
        return nn.Sequential(*_filtered(channels, stride, 1), *_filtered(channels, 1, 1))
    if operation is Operation.DILATED_3X3:
        return nn.Sequential(*_filtered(channels, stride, 2))
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)


class Node(nn.Module):
    """The sum of two edges."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left = left
        self.right = right

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Map two states (N, C, H, W) to one."""
        return self.left(left) + self.right(right)


class Cell(nn.Module):
    """Brings the outputs of the two cells before to one width, and concatenates what its nodes make of
    them.

    ``halved_before`` tells that the cell before halved the resolution, so that the output of the one before
    that is twice as large; ``stride`` is 2 in a cell that halves it itself.

    Source: Liu et al., ICLR 2019, section 2.1 and appendix A.
    """

    def __init__(
        self, plan: CellPlan, inputs: tuple[int, int], channels: int, stride: int, halved_before: bool
    ) -> None:
        super().__init__()
        self.plan = plan
        adapt = FactorizedReduce if halved_before else pointwise
        self.input0 = adapt(inputs[0], channels)
        self.input1 = pointwise(inputs[1], channels)
        self.nodes = nn.ModuleList(
            Node(
                # The cell's inputs are at the old resolution, its own nodes at the new one.
                *(_build(edge.operation, channels, stride if edge.source < 2 else 1) for edge in edges)
            )
            for edges in plan.nodes
        )
        self.out_channels = channels * len(plan.outputs)

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        """Map the outputs of the last cell but one and of the last to (N, out_channels, H / stride, W /
        stride)."""
        states = [self.input0(before), self.input1(last)]
        for node, (left, right) in zip(self.nodes, self.plan.nodes, strict=True):
            states.append(node(states[left.source], states[right.source]))
        return torch.cat([states[index] for index in self.plan.outputs], dim=1)
