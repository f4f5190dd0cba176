from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from dirnet_convert.binarize.activations import ShiftedPReLU
from dirnet_convert.finetune.norm_tails import NormTail, with_norm_tails

SEED = 9


class _Block(nn.Module):
    """Two convolutions, each with a norm; what follows the norms is given."""

    def __init__(self, first: nn.Module, second: nn.Module | None, shortcut: bool) -> None:
        super().__init__()
        self.conv1, self.norm1, self.first = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), first
        self.conv2, self.norm2, self.second = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6, momentum=0.3), second
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(x))
        y = x + y if self.shortcut else y
        return y if self.second is None else self.second(y)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, ShiftedPReLU) or super().is_leaf_module(module, name)


def _graph(network: nn.Module) -> fx.GraphModule:
    return fx.GraphModule(network, _Tracer().trace(network)).train()


def _tails(network: nn.Module) -> list[NormTail]:
    return [module for module in network.modules() if isinstance(module, NormTail)]


def _prepared(block: _Block) -> fx.GraphModule:
    print(f"seed {SEED}")
    torch.manual_seed(SEED)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return _graph(block)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("block", "tails"),
    [
        (lambda: _Block(ShiftedPReLU(6), nn.PReLU(), shortcut=True), 2),
        (lambda: _Block(nn.Hardtanh(-0.5, 2.0), nn.PReLU(6), shortcut=True), 2),
        (lambda: _Block(nn.ReLU(), None, shortcut=True), 2),
        (lambda: _Block(nn.ReLU6(), None, shortcut=False), 1),
        (lambda: _Block(nn.SiLU(), nn.SiLU(), shortcut=True), 1),
    ],
)
def test_training_is_the_same(block: Callable[[], _Block], tails: int, compiled: bool) -> None:
    network = _prepared(block())
    plain = copy.deepcopy(network)
    joined = with_norm_tails(network)
    assert len(_tails(joined)) == tails
    run = torch.compile(joined, dynamic=False, fullgraph=True) if compiled else joined
    images = torch.randn(5, 3, 8, 9)
    y, expected = run(images), plain(images)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    for (name, ours), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3, msg=name)
    for (name, ours), theirs in zip(network.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5, msg=name)


def test_parameters_are_shared() -> None:
    network = _graph(_Block(nn.ReLU(), nn.ReLU(), shortcut=True))
    joined = with_norm_tails(network)
    assert {id(p) for p in joined.parameters()} == {id(p) for p in network.parameters()}


def test_evaluation_is_that_of_the_parts() -> None:
    network = _prepared(_Block(ShiftedPReLU(6), nn.PReLU(), shortcut=True))
    joined, images = with_norm_tails(network), torch.randn(5, 3, 8, 9)
    joined(images)
    assert torch.equal(network.eval()(images), joined(images))


def test_what_the_operator_does_not_take_goes_through_the_parts() -> None:
    tail = NormTail(nn.BatchNorm2d(4), nn.ReLU()).train()
    x = torch.randn(2, 4, 5, 5)
    double = NormTail(nn.BatchNorm2d(4).double(), nn.ReLU()).train()
    torch.testing.assert_close(double(x.double()).float(), tail(x), rtol=1e-4, atol=1e-4)
    # Summands of other shapes and types are PyTorch's to spread and to promote.
    assert tail(x, torch.ones(4, 1, 1)).shape == x.shape
    assert tail(x.to(torch.bfloat16), x).dtype == torch.float32
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        tail(torch.randn(1, 4, 1, 1))


@pytest.mark.parametrize("arguments", [{"affine": False}, {"momentum": None}, {"track_running_stats": False}])
def test_other_norms_stay(arguments: dict) -> None:
    block = _Block(nn.ReLU(), nn.ReLU(), shortcut=False)
    block.norm1 = nn.BatchNorm2d(6, **arguments)
    joined = with_norm_tails(_graph(block))
    assert len(_tails(joined)) == 1
    joined(torch.randn(2, 3, 6, 6))


def test_a_value_that_is_needed_elsewhere_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.activation = nn.BatchNorm2d(3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            return self.activation(y) + y

    network = _graph(Twice())
    joined, x = with_norm_tails(network), torch.randn(2, 3, 4, 4)
    assert not _tails(joined)
    torch.testing.assert_close(joined(x), network(x))


def test_the_sum_of_two_norms_takes_one_of_them() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.activation = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.activation(self.one(x) + self.other(x.square()))

    network = _graph(Two())
    joined, x = with_norm_tails(network), torch.randn(2, 3, 4, 4)
    assert len(_tails(joined)) == 1
    torch.testing.assert_close(joined(x), network(x), rtol=1e-4, atol=1e-4)


def test_a_network_without_a_graph_is_returned_as_it_is() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    assert with_norm_tails(network) is network
