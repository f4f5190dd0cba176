"""Laws of balanced weights and their scales."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dirnet_convert.binarize.imb import balance_and_standardize, power_of_two_scale

# What rounding of float32 leaves of a mean of values of size 1.
MEAN_TOLERANCE = 1e-5

seeds = st.integers(0, 2**31 - 1)


def _weight(seed: int, outputs: int = 5, taps: int = 27) -> torch.Tensor:
    return torch.randn(outputs, taps // 9, 3, 3, generator=torch.Generator().manual_seed(seed))


@given(seeds, st.floats(1e-3, 1e3), st.floats(-10, 10))
@settings(max_examples=30, deadline=None)
def test_every_channel_has_mean_zero_and_unbiased_deviation_one(seed: int, size: float, shift: float) -> None:
    rows = balance_and_standardize(_weight(seed) * size + shift).flatten(1)
    tolerance = MEAN_TOLERANCE * max(1.0, abs(shift) / size)
    assert rows.mean(1).abs().max() < tolerance
    assert (rows.std(1) - 1).abs().max() < tolerance


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_scale_is_a_power_of_two_of_at_most_one(seed: int) -> None:
    weight = _weight(seed) ** 3
    scale = power_of_two_scale(balance_and_standardize(weight))
    assert scale.shape == (5,)
    assert all(math.frexp(value)[0] == 0.5 and 0 < value <= 1 for value in scale.tolist())


def test_scale_follows_the_formula() -> None:
    standardized = balance_and_standardize(_weight(1) ** 5)
    for channel, value in zip(standardized, power_of_two_scale(standardized).tolist(), strict=True):
        assert value == 2.0 ** round(math.log2(channel.abs().mean().item()))


@given(seeds, st.floats(0.01, 100), st.floats(-1, 1))
@settings(max_examples=30, deadline=None)
def test_signs_and_scale_do_not_change_with_size_and_offset(seed: int, size: float, shift: float) -> None:
    before = balance_and_standardize(_weight(seed))
    after = balance_and_standardize(_weight(seed) * size + shift * size)
    clear = before.abs() > 1e-4
    assert torch.equal(before[clear] >= 0, after[clear] >= 0)
    assert torch.equal(power_of_two_scale(before), power_of_two_scale(after))


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7e-5, 1e6])
def test_constant_channel_is_finite_and_can_learn(value: float) -> None:
    weight = torch.cat([torch.full((1, 2, 3, 3), value), _weight(0, 1, 18)]).requires_grad_()
    standardized = balance_and_standardize(weight)
    assert torch.equal(standardized[0], torch.zeros(2, 3, 3))
    assert power_of_two_scale(standardized)[0] == 1
    (standardized * torch.randn_like(standardized)).sum().backward()
    assert weight.grad is not None and bool(torch.isfinite(weight.grad).all())
    assert weight.grad[0].abs().max() > 0


def test_single_weight_channel_is_left_as_it_is() -> None:
    weight = torch.tensor([[[[-0.3]]], [[[2.0]]]])
    assert torch.equal(balance_and_standardize(weight), weight)


def test_gradient_goes_through_mean_and_deviation() -> None:
    weight = _weight(3).double().requires_grad_()
    assert torch.autograd.gradcheck(balance_and_standardize, (weight,))


def test_scale_has_no_gradient() -> None:
    assert not power_of_two_scale(_weight(0).requires_grad_()).requires_grad
