"""Thresholds halve the values, bits are counted, and batch norms hold the statistics of the calibration
images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dirnet_convert.binarize.layers import BinaryConv2d
from dirnet_convert.convert.binarize_network import Binarized
from dirnet_convert.convert.calibrate import calibrate, channel_medians, channel_values
from dirnet_convert.errors import UsageError
from dirnet_convert.recipe import Activation, Threshold

Convert = Callable[..., Binarized]


def _medians(x: torch.Tensor) -> torch.Tensor:
    return channel_medians(channel_values(x, axis=1))


def _network() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )


def test_medians_are_per_channel(generator: torch.Generator) -> None:
    x = torch.randn(5, 3, 7, 7, generator=generator) + torch.tensor([-3.0, 0.0, 9.0]).view(1, 3, 1, 1)
    medians = _medians(x)
    share = (x >= medians.view(-1, 1, 1)).double().mean(dim=(0, 2, 3))
    assert torch.allclose(share, torch.full_like(share, 0.5), atol=0.01)


@pytest.mark.parametrize(("zeros", "share"), [(0.7, 0.3), (0.3, 0.5), (1.0, 1.0)])
def test_ties_behind_a_relu_are_parted_as_well_as_can_be(
    zeros: float, share: float, generator: torch.Generator
) -> None:
    x = torch.rand(1, 1, 100, 100, generator=generator) + 0.1
    x.flatten()[: int(zeros * 10_000)] = 0.0
    assert (x >= _medians(x)).double().mean().item() == pytest.approx(share, abs=0.01)


def test_large_inputs_are_sampled_over_all_columns() -> None:
    # A step that shares its factors with the width would see the border columns alone.
    x = torch.zeros(32, 1, 256, 256)
    x[..., 1:] = torch.linspace(1, 2, 255)
    assert _medians(x).item() == pytest.approx(1.5, abs=0.01)


def test_bits_are_balanced_and_each_layer_is_reported(convert: Convert, generator: torch.Generator) -> None:
    network = convert(_network()).student
    images = torch.randn(64, 3, 16, 16, generator=generator)
    report = calibrate(network, images, Threshold.MEDIAN)
    layers = {name: m for name, m in network.named_modules() if isinstance(m, BinaryConv2d)}
    assert [bits.name for bits in report] == list(layers) == ["3", "6"]
    assert all(bits.entropy_bits > 0.95 and abs(bits.share_of_ones - 0.5) < 0.1 for bits in report)
    assert all(layer.threshold.abs().max() > 0 for layer in layers.values())


def test_reported_bits_are_those_of_the_layers(convert: Convert, generator: torch.Generator) -> None:
    network = convert(_network(), activation=Activation.KEEP).student
    images = torch.randn(20, 3, 16, 16, generator=generator)
    report = {bits.name: bits for bits in calibrate(network, images, Threshold.ZERO)}
    # Behind a ReLU no value is below zero: every bit is +1 and says nothing.
    assert all(bits.entropy_bits == 0 and bits.share_of_ones == 1 for bits in report.values())
    assert not network.get_submodule("3").threshold.any()


def test_norms_hold_the_mean_over_batches(convert: Convert, generator: torch.Generator) -> None:
    network = convert(_network()).student
    images = torch.randn(25, 3, 16, 16, generator=generator)
    calibrate(network, images, Threshold.MEDIAN, batch_size=8)
    with torch.no_grad():
        values = network.get_submodule("0")(images[:24])
    batches = values.split(8)
    mean = torch.stack([b.mean(dim=(0, 2, 3)) for b in batches]).mean(0)
    variance = torch.stack([b.transpose(0, 1).flatten(1).var(dim=1) for b in batches]).mean(0)
    norm = network.get_submodule("1")
    assert torch.allclose(norm.running_mean, mean, atol=1e-6)
    assert torch.allclose(norm.running_var, variance, rtol=1e-5)
    assert norm.momentum == 0.1 and norm.num_batches_tracked == 3


def test_modes_and_hooks_are_put_back(convert: Convert, generator: torch.Generator) -> None:
    network = convert(_network()).student.train()
    network.get_submodule("1").eval()
    calibrate(network, torch.randn(8, 3, 16, 16, generator=generator), Threshold.MEDIAN)
    modes = {name: m.training for name, m in network.named_modules()}
    assert [name for name, training in modes.items() if not training] == ["1"]
    assert not any(m._forward_pre_hooks for m in network.modules())


def test_one_image_is_enough_where_it_has_many_positions(
    convert: Convert, generator: torch.Generator
) -> None:
    network = convert(_network()).student
    report = calibrate(network, torch.randn(1, 3, 16, 16, generator=generator), Threshold.MEDIAN)
    assert all(bits.entropy_bits > 0.9 for bits in report)
    assert all(v.isfinite().all() for v in network.state_dict().values())


def test_one_image_of_one_position_is_refused(convert: Convert, generator: torch.Generator) -> None:
    network = convert(_network(), size=1).student
    with pytest.raises(UsageError, match=r"use more images \(convert\.calibration_images\)"):
        calibrate(network, torch.randn(1, 3, 1, 1, generator=generator), Threshold.MEDIAN)
    assert network.get_submodule("1").momentum == 0.1


def test_a_network_without_batch_norm(convert: Convert, generator: torch.Generator) -> None:
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    built = convert(network)
    assert len(built.structure.norms) == 1
    report = calibrate(built.student, torch.randn(9, 3, 16, 16, generator=generator), Threshold.MEDIAN)
    assert [bits.name for bits in report] == ["2"]


def test_a_threshold_keeps_clear_of_a_value_that_many_pixels_share(generator: torch.Generator) -> None:
    dead = torch.full((4, 1, 8, 8), 0.7)
    # The same value as another engine rounds it: one unit in the last place to either side.
    ulp = torch.finfo(dead.dtype).eps
    noise = ulp * torch.randint(-1, 2, dead.shape, generator=generator)
    threshold = _medians(dead * (1 + noise))
    assert (threshold - 0.7).abs().item() > 100 * ulp
