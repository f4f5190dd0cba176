"""What the tests of conversion share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dirnet_convert.convert.binarize_network import Binarized, binarize_network
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions

Convert = Callable[..., Binarized]


@pytest.fixture
def convert(generator: torch.Generator) -> Convert:
    """Return a function that binarizes a network for square images, with options by name."""

    def run(network: nn.Module, size: int = 16, channels: int = 3, **options: object) -> Binarized:
        image = torch.randn(1, channels, size, size, generator=generator)
        return binarize_network(network.eval(), image, ConvertOptions(**options), EstimatorOptions())

    return run


@pytest.fixture
def randomized(generator: torch.Generator) -> Callable[[nn.Module], nn.Module]:
    """Return a function that gives batch norms statistics and weights that are not the trivial ones."""

    def change(network: nn.Module) -> nn.Module:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(module.bias, 0, 0.2, generator=generator)
        return network.eval()

    return change
