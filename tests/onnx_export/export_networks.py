"""Small binarized networks of the shapes that real ones have, with lively statistics and thresholds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from dirnet_convert.binarize.activations import ShiftedPReLU
from dirnet_convert.binarize.layers import BinaryConv2d, BinaryLinear
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions


def binary_conv(
    inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, **options: object
) -> BinaryConv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, **{"bias": False, **options})
    return BinaryConv2d.from_conv(conv, ConvertOptions(), EstimatorOptions())


def binary_linear(inputs: int, outputs: int) -> BinaryLinear:
    return BinaryLinear.from_linear(nn.Linear(inputs, outputs), ConvertOptions(), EstimatorOptions())


class Block(nn.Module):
    """Two binary convolutions with a shortcut around each, or around both."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, activation: Callable[[int], nn.Module], shortcut: str
    ) -> None:
        super().__init__()
        self.conv1 = binary_conv(inputs, outputs, padding=1, stride=stride)
        self.bn1, self.act1 = nn.BatchNorm2d(outputs), activation(outputs)
        self.conv2 = binary_conv(outputs, outputs, padding=1)
        self.bn2, self.act2 = nn.BatchNorm2d(outputs), activation(outputs)
        self.per_convolution = shortcut == "per_convolution"
        self.padded = shortcut == "option_a"
        self.stride, self.extra = stride, outputs - inputs
        self.downsample: nn.Module = nn.Identity()
        if not self.padded and (stride != 1 or inputs != outputs):
            if shortcut == "pooled":
                self.downsample = nn.Sequential(
                    nn.AvgPool2d(stride, stride), nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs)
                )
            else:
                self.downsample = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.padded and self.extra:
            x = x[:, :, :: self.stride, :: self.stride]
            return functional.pad(x, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return self.downsample(x)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        if self.per_convolution:
            x = self.act1(y + self._shortcut(x))
            return self.act2(self.bn2(self.conv2(x)) + x)
        return self.act2(self.bn2(self.conv2(self.act1(y))) + self._shortcut(x))


class ResNet(nn.Module):
    """Stem with max pooling, four blocks, global pooling."""

    def __init__(self, activation: Callable[[int], nn.Module], shortcut: str, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        self.layer1 = nn.Sequential(
            Block(width, width, 1, activation, shortcut), Block(width, width, 1, activation, shortcut)
        )
        self.layer2 = nn.Sequential(
            Block(width, 2 * width, 2, activation, shortcut),
            Block(2 * width, 2 * width, 1, activation, shortcut),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.avgpool(self.layer2(self.layer1(self.stem(x)))), 1))


class InvertedResidual(nn.Module):
    """Binary 1x1 convolutions around a float depthwise one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(
            binary_conv(channels, 2 * channels, 1), nn.BatchNorm2d(2 * channels), nn.ReLU6()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(2 * channels, 2 * channels, 3, 1, 1, groups=2 * channels, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.Hardswish(),
        )
        self.project = nn.Sequential(binary_conv(2 * channels, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(self.depthwise(self.expand(x)))


class SqueezeExcite(nn.Module):
    """A channel gate made of float 1x1 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(torch.relu(self.reduce(gate))))


class Joined(nn.Module):
    """Branches side by side, joined along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def stem(width: int = 16) -> list[nn.Module]:
    return [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def head(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)]


def vgg(order: str = "pool_last") -> nn.Module:
    """Convolutions with max pooling; ``order`` puts the pooling behind the activation or in front of it."""
    layers = stem()
    for inputs, outputs in ((16, 24), (24, 24)):
        norm, act, pool = nn.BatchNorm2d(outputs), nn.Hardtanh(), nn.MaxPool2d(2)
        rest = [norm, act, pool] if order == "pool_last" else [pool, norm, act]
        layers += [binary_conv(inputs, outputs, padding=1), *rest]
    # 24 x 4 x 4 from 16 pixels.
    tail = [nn.Flatten(), binary_linear(24 * 16, 32), nn.BatchNorm1d(32), nn.Linear(32, 5)]
    return nn.Sequential(*layers, binary_conv(24, 24, padding=1), nn.BatchNorm2d(24), *tail)


def between(*layers: nn.Module, width: int) -> nn.Module:
    """``layers`` between a binary convolution to 16 channels and a head for ``width``."""
    return nn.Sequential(*stem(), binary_conv(16, 16, padding=1), nn.BatchNorm2d(16), *layers, *head(width))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet_original": lambda: ResNet(lambda c: nn.ReLU(), "original"),
    "resnet_per_convolution": lambda: ResNet(lambda c: nn.Hardtanh(), "per_convolution"),
    "resnet_option_a": lambda: ResNet(lambda c: nn.Hardtanh(), "option_a"),
    "resnet_pooled_shortcut": lambda: ResNet(lambda c: nn.PReLU(c), "pooled"),
    "resnet_rprelu": lambda: ResNet(ShiftedPReLU, "per_convolution"),
    "resnet_wide": lambda: ResNet(lambda c: nn.PReLU(), "per_convolution", width=72),
    "vgg": vgg,
    "vgg_pool_first": lambda: vgg("pool_first"),
    "mobilenet": lambda: nn.Sequential(*stem(), InvertedResidual(16), InvertedResidual(16), *head(16)),
    "squeeze_excite": lambda: between(SqueezeExcite(16), binary_conv(16, 8, 1), width=8),
    "bias_dilation": lambda: between(
        binary_conv(16, 8, 3, bias=True, dilation=2), nn.LeakyReLU(0.2), width=8
    ),
    "groups": lambda: between(binary_conv(16, 32, 3, groups=2, padding=1), nn.ReLU(), width=32),
    "strided_pointwise": lambda: between(binary_conv(16, 8, 1, stride=2), nn.ReLU(), width=8),
    "same_padding": lambda: between(binary_conv(16, 8, (4, 1), padding="same"), nn.SiLU(), width=8),
    "joined": lambda: between(
        Joined(binary_conv(16, 8, 3, padding=1), nn.AvgPool2d(3, 1, 1), nn.MaxPool2d(3, 1, 1)),
        binary_conv(40, 8, 1),
        width=8,
    ),
    "uncounted_padding": lambda: between(
        nn.AvgPool2d(3, 2, 1, count_include_pad=False, ceil_mode=True), binary_conv(16, 8, 1), width=8
    ),
    "float_in_between": lambda: between(
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), binary_conv(16, 8, 1), nn.BatchNorm2d(8), width=8
    ),
    "same_twice": lambda: _same_twice(),
}


def _same_twice() -> nn.Module:
    shared = binary_conv(16, 16, padding=1)
    return between(shared, nn.BatchNorm2d(16), nn.Hardtanh(), shared, width=16)


def build(name: str, seed: int = 0) -> nn.Module:
    """Return a network of ``NETWORKS`` with random statistics and thresholds, in eval mode."""
    torch.manual_seed(seed)
    network = NETWORKS[name]().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
                # Some negative: folding must not take the sign for granted.
                module.weight.normal_(1.0, 0.7)
                module.bias.normal_(0, 0.3)
            elif isinstance(module, BinaryConv2d | BinaryLinear):
                module.threshold.normal_(0, 0.2)
            elif isinstance(module, ShiftedPReLU):
                module.shift.normal_(0, 0.3)
                module.weight.uniform_(-0.2, 0.5)
    return network


def images(name: str, batch: int = 2, seed: int = 1) -> Tensor:
    """Return random images (N, 3, H, W) that fit ``name``; not square where the network allows."""
    generator = torch.Generator().manual_seed(seed)
    size = (16, 16) if name.startswith("vgg") else (32, 24) if name.startswith("resnet") else (10, 12)
    return torch.randn(batch, 3, *size, generator=generator)
