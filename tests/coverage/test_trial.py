"""One network on its way: what counts as done, as not convolutional, and as failed at which stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.layers import DropPath
from torch import nn
from torchvision.ops import StochasticDepth

from dirnet_convert.coverage.operations import is_convolutional
from dirnet_convert.coverage.trial import (
    Outcome,
    Route,
    Stage,
    TrialResult,
    enliven,
    keep_every_block,
    seed_of,
    try_network,
)

FILE = """
import torch
from torch import nn


class Broken(nn.Sequential):
    def forward(self, x):
        self.check(x)
        return super().forward(x)


def body(cls=nn.Sequential):
    middle = (nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    return cls(nn.Conv2d(3, 8, 3, 2), *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def good(num_classes=10):
    return body()


def picky(num_classes=10):
    def check(x):
        if x.shape[2] < 128:
            raise ValueError("too small")

    network = body(Broken)
    network.check = check
    return network


def wants_more(num_classes=10):
    def check(x):
        raise ValueError("too small for me")

    network = body(Broken)
    network.check = check
    return network


def not_finite(num_classes=10):
    return nn.Sequential(body(), nn.Threshold(float("inf"), float("nan")))


class Twice(nn.Module):
    def forward(self, x):
        return x, x


def two_answers(num_classes=10):
    return nn.Sequential(body(), Twice())


class Cut(nn.Sequential):
    def forward(self, x):
        # A branch, so that there is no graph, hence no representation that a gradient could come from.
        if x.sum() > 1e9:
            return x
        for layer in self:
            x = layer(x).detach() if isinstance(layer, nn.ReLU) else layer(x)
        return x


def detached(num_classes=10):
    return body(Cut)


class Looks(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def not_exportable(num_classes=10):
    return nn.Sequential(body(), Looks())


def linear(num_classes=10):
    return nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
"""
Try = Callable[[str], TrialResult]


@pytest.fixture
def attempt(tmp_path: Path) -> Try:
    """Return what tries one of the networks of FILE."""
    path = tmp_path / "nets.py"
    path.write_text(FILE)
    return lambda name: try_network(f"{path}:{name}", lambda stage: None)


def test_a_network_goes_the_whole_way(attempt: Try) -> None:
    result = attempt("good")
    assert (result.outcome, result.route, result.image_size) == (Outcome.OK, Route.GRAPH, 64)
    assert (result.binary_layers, result.layers, result.reason) == (1, 3, "")
    # 31 x 31 pixels: the middle has 8 * 8 * 9 multiply-adds a pixel, the first 3 * 8 * 9, the last 80 in all.
    assert result.mac_share == pytest.approx(576 / (576 + 216 + 80 / 31**2))
    assert result.error is not None and result.error < 1e-3


def test_the_smallest_image_that_a_network_takes_is_found(attempt: Try) -> None:
    assert attempt("picky").image_size == 128


@pytest.mark.parametrize(
    ("name", "stage", "words"),
    [
        ("wants_more", Stage.BUILD, "too small for me"),
        ("not_finite", Stage.TRAIN, "loss of a training step is nan"),
        ("two_answers", Stage.BUILD, "answers with tuple"),
        ("detached", Stage.TRAIN, "No gradient reaches the weights of 1"),
        ("not_exportable", Stage.EXPORT, "PyTorch cannot export this network"),
        ("no_such_factory", Stage.BUILD, "no_such_factory"),
    ],
)
def test_a_failure_has_its_stage_and_a_sentence(attempt: Try, name: str, stage: Stage, words: str) -> None:
    result = attempt(name)
    assert (result.outcome, result.stage) == (Outcome.FAILED, stage)
    assert words in result.reason and "\n" not in result.reason


def test_a_network_without_inner_convolutions_is_told_apart(attempt: Try) -> None:
    assert attempt("linear").outcome is Outcome.NOT_CONVOLUTIONAL


def test_stages_are_announced_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(FILE)
    stages: list[Stage] = []
    try_network(f"{tmp_path}/nets.py:good", stages.append)
    assert stages == list(Stage)


def test_the_same_name_gives_the_same_result(attempt: Try) -> None:
    first, second = attempt("good"), attempt("good")
    assert first.error == second.error and first.seed == second.seed == seed_of(first.model)
    assert seed_of("resnet18") == 1211294740


class _TwoStems(nn.Module):
    """Two convolutions that see the image, at two scales, and nothing between them and the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.head = nn.Conv2d(3, 8, 4), nn.Conv2d(3, 8, 8), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.avg_pool2d(x, 2)
        return self.head(self.fine(x).mean((2, 3)) + self.coarse(pooled).mean((2, 3)))


def _network(*middle: nn.Module) -> nn.Module:
    last = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    return nn.Sequential(nn.Conv2d(3, 8, 3), *middle, *last).eval()


@pytest.mark.parametrize(
    ("network", "convolutional"),
    [
        (_network(nn.Conv2d(8, 8, 3)), True),
        (_network(nn.Conv2d(8, 8, 1)), True),
        (_network(nn.Conv2d(8, 8, 3, groups=2)), True),
        (_network(), False),
        (_network(nn.Conv2d(8, 8, 3, groups=8)), False),
        (_network(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1)), False),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)), False),
        (_TwoStems(), False),
    ],
)
def test_what_counts_as_convolutional(network: nn.Module, convolutional: bool) -> None:
    assert is_convolutional(network, torch.zeros(1, 3, 16, 16)) is convolutional


def test_constant_parameters_get_noise_and_others_do_not(generator: torch.Generator) -> None:
    layer, norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
    nn.init.zeros_(norm.weight)
    before = layer.weight.clone()
    enliven(nn.Sequential(layer, norm))
    assert torch.equal(layer.weight, before)
    assert len(norm.weight.unique()) == len(norm.bias.unique()) == 8
    assert norm.weight.abs().max() < 1


def test_stochastic_depth_drops_no_block_in_a_trial() -> None:
    network = nn.Sequential(StochasticDepth(1.0, "row"), DropPath(1.0)).train()
    x = torch.ones(2, 3, 4, 4)
    assert not network(x).any()
    keep_every_block(network)
    assert torch.equal(network(x), x)
