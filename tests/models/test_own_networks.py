"""The networks that only this project has are those of the papers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dirnet_convert.models.cifar_resnet import (
    BasicBlock,
    cifar_resnet18,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
)
from dirnet_convert.models.vgg_small import vgg_small


@pytest.mark.parametrize(
    ("build", "layers", "million"),
    # He et al. 2016, table 6: 0.27, 0.46, 0.66 and 0.85 million parameters.
    [(resnet20, 20, 0.27), (resnet32, 32, 0.46), (resnet44, 44, 0.66), (resnet56, 56, 0.85)],
)
def test_residual_networks_have_the_papers_size(build: object, layers: int, million: float) -> None:
    network = build()
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules()) == layers
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(million, abs=0.006)


def test_a_shortcut_subsamples_and_pads_with_zeros(generator: torch.Generator) -> None:
    block = BasicBlock(4, 8, 2).eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(1, 4, 6, 6, generator=generator)
    with torch.no_grad():
        y = block(x)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, :2].any() and not y[:, 6:].any()


def test_resnet18_for_small_images_keeps_their_size_in_the_stem() -> None:
    network = cifar_resnet18(7).eval()
    # ResNet-18's 11.69 million without a 1000-class head and a 7x7 stem, with those of this one.
    expected = 11_689_512 - (512 + 1) * 1000 + (512 + 1) * 7 - 64 * 3 * (49 - 9)
    assert sum(p.numel() for p in network.parameters()) == expected
    shapes = []
    network.layer1.register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].shape))
    network.layer4.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert shapes == [(2, 64, 32, 32), (2, 512, 4, 4)]


def test_vgg_small_has_the_literatures_size() -> None:
    assert [m.out_channels for m in vgg_small().modules() if isinstance(m, nn.Conv2d)] == [
        128,
        128,
        256,
        256,
        512,
        512,
    ]
    assert vgg_small(7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
