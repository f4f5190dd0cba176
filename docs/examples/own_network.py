"""A network of one's own, with what such networks have: see docs/own-network.md."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class GainConv2d(nn.Conv2d):
    """A convolution with a learned factor for its whole output."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels, 3, padding=1, bias=False)
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, channels, H, W)."""
        return self.gain * super().forward(x)


class Gate(nn.Module):
    """Squeeze and excitation: a factor for each channel, from the means of all of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 4, 1)
        self.up = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        mean = functional.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.up(functional.relu(self.down(mean))))


class GatedBlock(nn.Module):
    """Two convolutions and a gate, with a shortcut around all three."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.gate = Gate(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(x + self.gate(self.norm2(self.conv2(y))))


class Widen(nn.Module):
    """Halves the resolution, and puts two convolutions of different reach side by side."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.near = nn.Conv2d(in_channels, half, 3, stride=2, padding=1, bias=False)
        self.far = nn.Conv2d(in_channels, half, 5, stride=2, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H / 2, W / 2)."""
        return functional.relu(self.norm(torch.cat([self.near(x), self.far(x)], dim=1)))


class OwnNetwork(nn.Module):
    """A small classifier of images whose edge is divisible by 4."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(32)
        self.block1 = GatedBlock(32)
        self.widen = Widen(32, 64)
        self.block2 = GatedBlock(64)
        self.mix = GainConv2d(64, 64)
        self.mix_norm = nn.BatchNorm2d(64)
        self.classifier = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, classes)."""
        x = functional.relu(self.stem_norm(self.stem(x)))
        x = self.block2(self.widen(self.block1(x)))
        x = functional.relu(self.mix_norm(self.mix(x)))
        return self.classifier(x.mean(dim=(2, 3)))


def build(num_classes: int = 10) -> nn.Module:
    """Build the network; dirnet passes the data's number of classes."""
    return OwnNetwork(num_classes)
