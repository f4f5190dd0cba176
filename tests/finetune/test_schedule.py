"""Learning rate and estimators at each position of the training."""

from __future__ import annotations

import dataclasses
import math
from types import ModuleType

import pytest
import torch
from torch import nn

from dirnet_convert.binarize.layers import BinaryConv2d, binary_layers
from dirnet_convert.convert.binarize_network import binarize_network
from dirnet_convert.errors import UsageError
from dirnet_convert.finetune.optimizer import build_average, build_optimizer
from dirnet_convert.finetune.schedule import (
    RateSchedule,
    clip_weights,
    epoch_image_size,
    fading_note,
    observe_distributions,
    receiving_shares,
    set_estimator_progress,
    set_estimators,
    small_images_note,
)
from dirnet_convert.models.cifar_resnet import resnet20
from dirnet_convert.recipe import (
    Activation,
    ConvertOptions,
    EstimatorKind,
    EstimatorOptions,
    ScheduleKind,
    Shortcut,
    TrainOptions,
    WeightClip,
)

STEPS = 10
SEED = 13


def _rates(options: TrainOptions, steps: int = STEPS) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=options.lr)
    schedule = RateSchedule(optimizer, options, steps)
    rates = []
    for step in range(options.epochs * steps):
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


@pytest.mark.parametrize("kind", list(ScheduleKind))
def test_a_single_step_has_the_full_rate_and_no_warning(
    kind: ScheduleKind, caplog: pytest.LogCaptureFixture
) -> None:
    assert _rates(TrainOptions(epochs=1, lr=0.2, schedule=kind), steps=1) == pytest.approx([0.2])
    assert not caplog.records


def test_two_parts_have_a_warm_up_and_a_fall_each() -> None:
    rates = _rates(TrainOptions(epochs=4, lr=0.2, warmup_epochs=0.5, inputs_first=0.25))
    assert rates[:10] == pytest.approx(_rates(TrainOptions(epochs=1, lr=0.2, warmup_epochs=0.5)))
    assert rates[10:] == pytest.approx(_rates(TrainOptions(epochs=3, lr=0.2, warmup_epochs=0.5)))


def test_weights_are_real_in_the_first_part_and_binary_in_the_second(tiny: ModuleType) -> None:
    network = tiny.TinyNetwork(binary=True).train()
    set_estimators(network, EstimatorOptions(gradual_inputs=0.5))
    seen = {}
    for step in (0, 5, 10, 19, 20, 30, 59):
        set_estimator_progress(network, step, 20, 60)
        estimators = [(layer.weight_estimator, layer.input_estimator) for layer in binary_layers(network)]
        assert len({(w.blend.item(), i.blend.item(), w.t.item()) for w, i in estimators}) == 1
        weights, inputs = estimators[0]
        seen[step] = (weights.blend.item(), inputs.blend.item())
        assert (weights.fades, inputs.fades) == (weights.blend < 1, inputs.blend < 1)
        # Each part has the whole course of t.
        inner = step / 20 if step < 20 else (step - 20) / 40
        assert weights.t.item() == inputs.t.item() == pytest.approx(0.1 * 100**inner)
    assert seen == {0: (0, 0), 5: (0, 0.5), 10: (0, 1), 19: (0, 1), 20: (1, 1), 30: (1, 1), 59: (1, 1)}


@pytest.mark.parametrize("mode", ["whole", "gradual", "first"])
def test_what_begins_real_computes_the_pretrained_network_at_step_0(tiny: ModuleType, mode: str) -> None:
    """Up to batch normalization's factor per channel: every convolution's output is that of the teacher."""
    torch.manual_seed(SEED)
    print(f"seed {SEED}")
    teacher, student = tiny.TinyNetwork(binary=False).train(), tiny.TinyNetwork(binary=True).train()
    student.load_state_dict(teacher.state_dict(), strict=False)
    with torch.no_grad():
        for layer in binary_layers(student):
            layer.threshold.uniform_(-0.5, 0.5)
            layer.weight.add_(0.05)
        teacher.conv1.weight.add_(0.05)
        teacher.conv2.weight.add_(0.05)
    gradual = 0.0 if mode == "whole" else 0.4
    set_estimators(student, EstimatorOptions(gradual_weights=gradual, gradual_inputs=gradual))
    for dropout in (teacher.dropout, student.dropout):
        dropout.p = 0.0
    set_estimator_progress(student, 0, 5 if mode == "first" else 0, 10)
    images = torch.randn(16, 3, 8, 8)
    logits, representations = student.representations(images)
    expected, theirs = teacher.representations(images)
    distance = max(
        float((ours - other).detach().abs().max())
        for ours, other in zip((logits, *representations), (expected, *theirs), strict=True)
    )
    # Batch normalization's eps sees weights of another size.
    assert distance > 0.1 if mode == "whole" else distance < 2e-3


@pytest.mark.parametrize(
    ("activation", "shortcut", "same"),
    [
        (Activation.KEEP, Shortcut.ORIGINAL, True),
        (Activation.KEEP, Shortcut.PER_CONVOLUTION, False),
        (Activation.HARDTANH, Shortcut.ORIGINAL, False),
    ],
)
def test_a_whole_network_begins_as_the_pretrained_one_where_nothing_around_was_changed(
    activation: Activation, shortcut: Shortcut, same: bool
) -> None:
    torch.manual_seed(SEED)
    print(f"seed {SEED}")
    images = torch.randn(8, 3, 32, 32)
    options = ConvertOptions(activation=activation, shortcut=shortcut)
    built = binarize_network(resnet20().eval(), images[:1], options, EstimatorOptions())
    set_estimators(built.student, EstimatorOptions(gradual_weights=0.3, gradual_inputs=0.3))
    set_estimator_progress(built.student, 0, 0, 10)
    with torch.no_grad():
        difference = (built.student.train()(images) - built.teacher.train()(images)).abs().max().item()
    assert (difference < 5e-3) == same


def test_clipped_weights_stay_within_their_bounds(tiny: ModuleType) -> None:
    network = tiny.TinyNetwork(binary=True)
    with torch.no_grad():
        network.conv1.weight.mul_(20.0).add_(0.3)
    before = network.conv1.weight.detach().clone()
    clip_weights(network, EstimatorOptions(), 0.0)
    assert torch.equal(network.conv1.weight, before)
    quantile = EstimatorOptions(clip=WeightClip.QUANTILE, clip_tau_min=0.85, clip_tau_max=0.99)
    mean = before.mean((1, 2, 3), keepdim=True)
    spread = (before - mean).abs().mean((1, 2, 3), keepdim=True)
    for fraction, tau in ((0.5, 0.92), (0.0, 0.85)):
        with torch.no_grad():
            network.conv1.weight.copy_(before)
        clip_weights(network, quantile, fraction)
        reach = -spread * math.log(2 - 2 * tau)
        expected = torch.minimum(torch.maximum(before, mean - reach), mean + reach)
        torch.testing.assert_close(network.conv1.weight.detach(), expected)
        assert not torch.equal(expected, before)
    clip_weights(network, EstimatorOptions(clip=WeightClip.BOUND, clip_bound=0.1), 0.5)
    assert network.conv1.weight.detach().abs().max().item() == pytest.approx(0.1)


def test_shares_that_receive_gradient_are_those_of_each_layers_own_values(tiny: ModuleType) -> None:
    network = tiny.TinyNetwork(binary=True).train()
    torch.manual_seed(SEED)
    print(f"seed {SEED}")
    set_estimators(network, EstimatorOptions(weights=EstimatorKind.STE, inputs=EstimatorKind.STE, window=0.3))
    images = torch.randn(8, 3, 8, 8)
    random_state = torch.get_rng_state()
    shares = receiving_shares(network, network, images)
    assert [layer.name for layer in shares] == ["conv1", "conv2"]
    assert network.training and torch.equal(random_state, torch.get_rng_state())
    assert all(not layer._forward_pre_hooks for layer in binary_layers(network))
    seen = {}
    network.conv1.register_forward_pre_hook(lambda layer, inputs: seen.update(x=inputs[0]))
    with torch.no_grad():
        network.eval()(images)
    inside = float((seen["x"].abs() <= 0.3).float().mean())
    assert 0 < inside < 1 and shares[0].inputs == pytest.approx(inside)
    weights = network.conv1.standardized_weight().detach()
    assert shares[0].weights == pytest.approx(float((weights.abs() <= 0.3).float().mean()))
    assert 0 < shares[0].weights < 1


def test_a_fading_training_says_what_its_test_accuracy_is() -> None:
    plain, fading = EstimatorOptions(), EstimatorOptions(gradual_weights=0.125, gradual_inputs=0.25)
    assert fading_note(plain, TrainOptions()) == ""
    assert "the first 25 % of the training;" in fading_note(fading, TrainOptions())
    assert fading_note(fading, TrainOptions()).endswith(", when the step is compiled again.")
    assert fading_note(fading, TrainOptions(compile=False)).endswith("stay near chance until then.")
    structure = EstimatorOptions(gradual_structure=0.1)
    assert fading_note(structure, TrainOptions()).startswith(
        "The pretrained network fades into the binary one over"
    )
    assert "the first 10 % of the training;" in fading_note(structure, TrainOptions())
    assert "the first 25 % of each part" in fading_note(fading, TrainOptions(inputs_first=0.5))


@pytest.mark.parametrize(("share", "small"), [(0.0, 0), (0.1, 0), (0.13, 1), (0.5, 2), (0.74, 3), (0.99, 3)])
def test_small_images_come_first_and_never_last(share: float, small: int) -> None:
    options = TrainOptions(epochs=4, image_size=96, small_image_size=64, small_first=share)
    assert [epoch_image_size(options, epoch) for epoch in range(4)] == [64] * small + [96] * (4 - small)


def test_a_training_that_begins_with_small_images_says_so() -> None:
    options = TrainOptions(epochs=4, small_image_size=64, small_first=0.5, compile=False)
    assert small_images_note(TrainOptions(epochs=4), 112) == ""
    said = "Training images have 64 pixels in the first 2 of 4 epochs and 112 from then on"
    assert small_images_note(options, 112) == f"{said}."
    again = ", when the step is compiled again."
    assert small_images_note(dataclasses.replace(options, compile=True), 112) == said + again
    none = "All training images have 112 pixels: of 1 epochs, a first share of 0.5 is none."
    assert small_images_note(dataclasses.replace(options, epochs=1), 112) == none
    assert "and 96 from" in small_images_note(dataclasses.replace(options, image_size=96), 112)


def test_progress_reaches_every_estimator(tiny: ModuleType) -> None:
    network = tiny.TinyNetwork(binary=True)
    set_estimator_progress(network, 30, 0, 60)
    layers = binary_layers(network)
    assert len(layers) == 2
    for layer in layers:
        assert layer.weight_estimator.t.item() == pytest.approx(1.0)
        assert layer.input_estimator.t.item() == pytest.approx(1.0)


def test_observing_fills_quantiles_and_leaves_all_else(tiny: ModuleType) -> None:
    torch.manual_seed(SEED)
    print(f"seed {SEED}")
    network = tiny.TinyNetwork(binary=True).train()
    # Of sums of signs many are 0, and more than a tenth of them would make the quantile 0.
    torch.nn.init.uniform_(network.bn1.bias)
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
