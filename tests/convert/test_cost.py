"""Where the plan expects a binary layer to be slower than FP32, and whether measurements agree."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from dirnet_convert.convert.binarize_network import plan_network
from dirnet_convert.convert.cost import ConvWork, expected_speed, slowness
from dirnet_convert.convert.policy import Decision, LayerPlan
from dirnet_convert.recipe import ConvertOptions

LAYERS = Path(__file__).parents[2] / "docs" / "results" / "layers"
MEASURED = json.loads((LAYERS / "layers.json").read_text())["layers"]


class Net(nn.Module):
    """A first layer, a 3x3 convolution of 64 channels, a depthwise one, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 64, 3, padding=1)
        self.dense = nn.Conv2d(64, 64, 3, padding=1)
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.classifier = nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.depthwise(torch.relu(self.dense(torch.relu(self.first(x))))))
        return self.classifier(x.mean((2, 3)))


def plan(**options: tuple[str, ...]) -> dict[str, LayerPlan]:
    layers, _ = plan_network(Net().eval(), torch.zeros(1, 3, 56, 56), ConvertOptions(**options))
    return {layer.name: layer for layer in layers}


def test_a_forced_depthwise_layer_is_cautioned_and_a_dense_one_is_not() -> None:
    layers = plan(binarize=("depthwise",))
    assert layers["depthwise"].decision is Decision.BINARIZE
    assert "binary expected slower than FP32 here (0." in layers["depthwise"].caution
    assert layers["depthwise"].caution.endswith("keep it in float with --keep 'depthwise'")
    assert layers["dense"].decision is Decision.BINARIZE
    assert layers["dense"].caution == ""


def test_nothing_is_said_of_layers_that_are_kept() -> None:
    assert {layer.caution for layer in plan().values()} == {""}
    assert plan()["depthwise"].decision is Decision.KEEP


def test_nothing_is_said_of_what_is_not_known() -> None:
    depthwise = nn.Conv2d(64, 64, 3, groups=64)
    positions = 56 * 56
    assert slowness("a", depthwise, positions * depthwise.weight.numel(), 1)
    assert slowness("a", depthwise, 0, 1) == ""
    assert slowness("a", nn.Linear(64, 1), 64, 1) == ""


def test_a_layer_that_is_called_twice_is_judged_by_one_call() -> None:
    # Small enough for the price of a call to decide: twice the positions would make it look faster.
    layer = nn.Conv2d(64, 16, 1)
    once = slowness("gate", layer, layer.weight.numel(), 1)
    assert once
    assert slowness("gate", layer, 2 * layer.weight.numel(), 2) == once


def test_more_positions_never_make_a_call_cheaper() -> None:
    speeds = [expected_speed(ConvWork(64, 64, 1, 9, n, n)) for n in (1, 49, 196, 784, 3136)]
    assert all(speed > 1 for speed in speeds[1:])
    assert speeds == sorted(speeds)


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: row["name"])
def test_the_estimate_agrees_with_what_was_measured(row: dict) -> None:
    measured = row["fp32_us"] / (row["binarize_us"] + row["conv_us"])
    expected = expected_speed(_fit().conv_work(row))
    assert 0.5 < expected / measured < 2
    if not 0.9 < measured < 1.1:
        assert (expected < 1) == (measured < 1)


def _fit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("layers_fit", LAYERS / "fit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
