"""The networks that DARTS evaluated on CIFAR-10 and ImageNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dirnet_convert.models.darts_cell import Cell
from dirnet_convert.models.darts_genotype import SECOND_ORDER, Genotype

CIFAR_CELLS, CIFAR_CHANNELS, CIFAR_STEM_FACTOR = 20, 36, 3
IMAGENET_CELLS, IMAGENET_CHANNELS = 14, 48


class _Cells(nn.Module):
    """A row of cells that halves the resolution after a third and after two thirds of its length, doubling
    the channels."""

    def __init__(
        self,
        genotype: Genotype,
        cells: int,
        channels: int,
        in_channels: int,
        halved_before: bool,
    ) -> None:
        super().__init__()
        built: list[Cell] = []
        before = last = in_channels
        for index in range(cells):
            halves = index in (cells // 3, 2 * cells // 3)
            channels = channels * 2 if halves else channels
            plan = genotype.reduction if halves else genotype.normal
            cell = Cell(plan, (before, last), channels, 2 if halves else 1, halved_before)
            before, last, halved_before = last, cell.out_channels, halves
            built.append(cell)
        self.cells = nn.ModuleList(built)
        self.out_channels = last

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        for cell in self.cells:
            before, last = last, cell(before, last)
        return last


class DartsCifar(nn.Module):
    """20 cells behind one 3x3 convolution, for images of 32x32.

    Source: Liu et al., ICLR 2019, section 3.2: 36 initial channels, 3.3 million parameters. The auxiliary
    classifier and drop-path of its training are no part of the network.
    """

    def __init__(
        self,
        num_classes: int = 10,
        cells: int = CIFAR_CELLS,
        channels: int = CIFAR_CHANNELS,
        genotype: Genotype = SECOND_ORDER,
    ) -> None:
        super().__init__()
        width = CIFAR_STEM_FACTOR * channels
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.body = _Cells(genotype, cells, channels, width, halved_before=False)
        self.classifier = nn.Linear(self.body.out_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) with H and W divisible by 4 to logits (N, classes)."""
        x = self.stem(x)
        x = self.body(x, x)
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class DartsImageNet(nn.Module):
    """14 cells behind three strided 3x3 convolutions, for images of 224x224.

    Source: Liu et al., ICLR 2019, section 3.3: the mobile setting, 48 initial channels, 4.7 million
    parameters. The paper says 574 million multiply-adds; its convolutions and linear layer have 530 million.
    The auxiliary classifier and drop-path of its training are no part of the network.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        cells: int = IMAGENET_CELLS,
        channels: int = IMAGENET_CHANNELS,
        genotype: Genotype = SECOND_ORDER,
    ) -> None:
        super().__init__()
        half = channels // 2
        self.stem0 = nn.Sequential(
            nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.stem1 = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.body = _Cells(genotype, cells, channels, channels, halved_before=True)
        self.classifier = nn.Linear(self.body.out_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) with H and W divisible by 32 to logits (N, classes)."""
        before = self.stem0(x)
        x = self.body(before, self.stem1(before))
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def darts_cifar(num_classes: int = 10) -> DartsCifar:
    """Build the network for CIFAR-10."""
    return DartsCifar(num_classes)


def darts_imagenet(num_classes: int = 1000) -> DartsImageNet:
    """Build the network for ImageNet."""
    return DartsImageNet(num_classes)
