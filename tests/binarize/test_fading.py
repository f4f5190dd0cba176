"""What stands between a pretrained network's values and those that take their place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dirnet_convert.binarize.fading import Fade, FadingNetwork


class _During(nn.Module):
    """Fades from the identity into ``layer``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.fade = layer, Fade()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fade(x, self.layer(x))


def test_fading_goes_from_one_network_to_the_other() -> None:
    torch.manual_seed(3)
    print("seed 3")
    layer, x = nn.Linear(4, 4), torch.randn(5, 4)
    network = FadingNetwork(_During(layer), layer)
    assert network.fades and torch.equal(network(x), x)
    network.set_blend(0.25)
    torch.testing.assert_close(network(x), 0.75 * x + 0.25 * layer(x))
    network.set_blend(1.0)
    assert not network.fades and torch.equal(network(x), layer(x))
    network.set_blend(0.0)
    assert network.fades and torch.equal(network(x), x)


def test_parameters_are_counted_once_and_nothing_is_stored() -> None:
    layer = nn.Linear(4, 4)
    network = FadingNetwork(_During(layer), layer)
    assert {id(p) for p in network.parameters()} == {id(p) for p in layer.parameters()}
    assert len(list(network.parameters())) == 2
    assert not any("blend" in name for name in network.state_dict())


def test_both_ways_are_changed() -> None:
    layer = nn.Linear(4, 4)
    network = FadingNetwork(_During(layer), layer)
    network.change(lambda way: nn.Sequential(way, nn.Flatten(0)))
    x = torch.randn(2, 4)
    assert network(x).shape == (8,)
    network.set_blend(1.0)
    assert torch.equal(network(x), layer(x).flatten())


def test_values_of_two_precisions_are_promoted() -> None:
    fade = Fade()
    fade.blend.fill_(0.5)
    before, after = torch.ones(3), torch.full((3,), 2.0, dtype=torch.bfloat16)
    assert torch.equal(fade(before, after), torch.full((3,), 1.5))
    assert torch.equal(fade(after, before), torch.full((3,), 1.5))


@pytest.mark.slow
def test_compiled_it_follows_the_blend_and_leaves_out_what_has_ended() -> None:
    torch.manual_seed(5)
    print("seed 5")
    layer, x = nn.Linear(4, 4), torch.randn(5, 4)
    network = FadingNetwork(_During(layer), layer)
    compiled = torch.compile(network, dynamic=False, fullgraph=True)
    for blend in (0.0, 0.5, 1.0):
        network.set_blend(blend)
        torch.testing.assert_close(compiled(x), network(x))
    compiled(x).sum().backward()
    assert layer.weight.grad is not None
