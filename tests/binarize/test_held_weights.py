"""Weights that are held give what computed ones give, and are let go of."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dirnet_convert.binarize.held_weights import held_weights
from dirnet_convert.binarize.layers import BinaryConv2d, BinaryLinear, binary_layers
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions


def _network(options: ConvertOptions) -> nn.Sequential:
    estimator = EstimatorOptions()
    conv = BinaryConv2d.from_conv(nn.Conv2d(5, 7, 3, padding=1), options, estimator)
    linear = BinaryLinear.from_linear(nn.Linear(7 * 36, 4), options, estimator)
    return nn.Sequential(conv, nn.Flatten(), linear)


@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_held_weights_give_the_same_bits(generator: torch.Generator, balance: bool, scale: bool) -> None:
    network = _network(ConvertOptions(balance_weights=balance, scale_weights=scale)).eval()
    images = torch.randn(3, 5, 6, 6, generator=generator)
    with torch.no_grad():
        expected = network(images)
        own = [(layer.binary_weight(), layer.weight_scale()) for layer in binary_layers(network)]
        with held_weights(network):
            assert torch.equal(network(images), expected)
            held = [(layer.binary_weight(), layer.weight_scale()) for layer in binary_layers(network)]
    for (signs, scale), (own_signs, own_scale) in zip(held, own, strict=True):
        assert torch.equal(signs, own_signs)
        assert torch.equal(scale, own_scale)


def test_they_are_let_go_of_after_an_error(generator: torch.Generator) -> None:
    network = _network(ConvertOptions()).eval()
    images = torch.randn(3, 5, 6, 6, generator=generator)
    with pytest.raises(KeyboardInterrupt), held_weights(network):
        raise KeyboardInterrupt
    with torch.no_grad():
        before = network(images)
        for layer in binary_layers(network):
            layer.weight.neg_()
        assert not torch.equal(network(images), before)


def test_the_outer_one_of_two_keeps_them(generator: torch.Generator) -> None:
    network = _network(ConvertOptions()).eval()
    with held_weights(network):
        outer = [layer.held_weight for layer in binary_layers(network)]
        with held_weights(network):
            pass
        assert [layer.held_weight for layer in binary_layers(network)] == outer
    assert all(layer.held_weight is None for layer in binary_layers(network))


def test_they_are_no_part_of_the_state(generator: torch.Generator) -> None:
    network = _network(ConvertOptions())
    keys = set(network.state_dict())
    with held_weights(network):
        assert set(network.state_dict()) == keys
        network.load_state_dict(copy.deepcopy(network.state_dict()))


def test_a_layer_in_training_learns(generator: torch.Generator) -> None:
    network = _network(ConvertOptions()).train()
    with held_weights(network):
        network(torch.randn(3, 5, 6, 6, generator=generator)).sum().backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in binary_layers(network))
