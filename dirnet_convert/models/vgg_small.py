"""VGG-Small, the six-convolution network that the binary-network literature uses on CIFAR-10."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTHS = (128, 128, 256, 256, 512, 512)


class VggSmall(nn.Module):
    """Six 3x3 convolutions with batch norm, a max pool after every second one, and one linear layer.

    Source: the VGG-Small of the binary-network literature (IR-Net and successors): 128-128-256-256-512-512,
    order convolution, pool, batch norm, activation, classifier on 512*4*4.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        in_channels = 3
        for index, channels in enumerate(WIDTHS):
            layers.append(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False))
            if index % 2 == 1:
                layers.append(nn.MaxPool2d(2))
            layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
            in_channels = channels
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(WIDTHS[-1] * 4 * 4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, 32, 32) to logits (N, classes)."""
        return self.classifier(torch.flatten(self.features(x), 1))


def vgg_small(num_classes: int = 10) -> VggSmall:
    """Build VGG-Small."""
    return VggSmall(num_classes)
