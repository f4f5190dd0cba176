"""Learning rate and estimators at each position of the training."""

from __future__ import annotations

import dataclasses
import math
from types import ModuleType

import pytest
import torch
from torch import nn

from dirnet_convert.binarize.layers import BinaryConv2d, binary_layers
from dirnet_convert.errors import UsageError
from dirnet_convert.finetune.optimizer import build_average, build_optimizer
from dirnet_convert.finetune.schedule import (
    learning_rate_schedule,
    observe_distributions,
    set_estimator_progress,
    set_estimators,
)
from dirnet_convert.recipe import EstimatorKind, EstimatorOptions, ScheduleKind, TrainOptions

STEPS = 10


def _rates(options: TrainOptions) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=options.lr)
    schedule = learning_rate_schedule(optimizer, options, STEPS)
    rates = []
    for step in range(options.epochs * STEPS):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("kind", list(ScheduleKind))
def test_learning_rate_rises_then_falls_by_its_kind(kind: ScheduleKind) -> None:
    rates = _rates(TrainOptions(epochs=4, lr=0.2, warmup_epochs=0.5, min_lr_ratio=0.1, schedule=kind))
    assert rates[:6] == pytest.approx([0.04, 0.072, 0.104, 0.136, 0.168, 0.2])
    for step in (7, 18, 28):
        position = step / 35
        fall = {
            ScheduleKind.COSINE: 0.5 * (1 + math.cos(math.pi * position)),
            ScheduleKind.LINEAR: 1 - position,
            ScheduleKind.CONSTANT: 1.0,
        }[kind]
        assert rates[5 + step] == pytest.approx(0.02 + 0.18 * fall)


def test_no_warm_up_begins_at_the_full_rate() -> None:
    rates = _rates(TrainOptions(epochs=2, lr=0.2, warmup_epochs=0.0))
    assert rates[0] == pytest.approx(0.2)
    assert rates == sorted(rates, reverse=True)


def test_progress_reaches_every_estimator(tiny: ModuleType) -> None:
    network = tiny.TinyNetwork(binary=True)
    set_estimator_progress(network, 0.5)
    layers = binary_layers(network)
    assert len(layers) == 2
    for layer in layers:
        assert layer.weight_estimator.t.item() == pytest.approx(1.0)
        assert layer.input_estimator.t.item() == pytest.approx(1.0)


def test_observing_fills_quantiles_and_leaves_all_else(tiny: ModuleType) -> None:
    network = tiny.TinyNetwork(binary=True).train()
    before = {k: v.clone() for k, v in network.state_dict().items() if not k.endswith("quantile")}
    random_state = torch.get_rng_state()
    observe_distributions(network, torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert network.training and torch.equal(random_state, torch.get_rng_state())
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(layer.input_estimator.quantile > 0 for layer in binary_layers(network))
    assert all(not layer._forward_pre_hooks for layer in binary_layers(network))


def test_estimators_can_be_replaced(tiny: ModuleType) -> None:
    network = tiny.TinyNetwork(binary=True)
    set_estimators(network, EstimatorOptions(weights=EstimatorKind.STE, inputs=EstimatorKind.POLYNOMIAL))
    assert {layer.weight_estimator.kind for layer in binary_layers(network)} == {EstimatorKind.STE}
    assert {layer.input_estimator.kind for layer in binary_layers(network)} == {EstimatorKind.POLYNOMIAL}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lion"])
def test_only_matrices_decay(tiny: ModuleType, name: str) -> None:
    network = tiny.TinyNetwork(binary=True)
    optimizer = build_optimizer(network, TrainOptions(optimizer=name, weight_decay=0.01))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for parameter in network.parameters():
        assert decays[id(parameter)] == (0.01 if parameter.ndim > 1 else 0.0)
    assert isinstance(network.conv1, BinaryConv2d) and decays[id(network.conv1.threshold)] == 0.0


def test_unknown_optimizer_names_the_nearest(tiny: ModuleType) -> None:
    with pytest.raises(UsageError, match="did you mean 'adamw'"):
        build_optimizer(tiny.TinyNetwork(binary=True), TrainOptions(optimizer="adamww"))


def test_average_follows_the_weights(tiny: ModuleType) -> None:
    network = tiny.TinyNetwork(binary=True)
    options = TrainOptions(ema_decay=0.5)
    assert build_average(network, dataclasses.replace(options, ema_decay=0.0)) is None
    average = build_average(network, options)
    assert average is not None
    start = network.conv1.weight.detach().clone()
    with torch.no_grad():
        network.conv1.weight.add_(1.0)
    for step in (100, 101):
        average.update(network, step=step)
    torch.testing.assert_close(average.module.conv1.weight, start + 0.75)
