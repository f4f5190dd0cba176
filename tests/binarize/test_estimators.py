"""The estimators: exact signs forward, the stated slope backward, the stated schedule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dirnet_convert.binarize.dte import magnitude_quantile
from dirnet_convert.binarize.ede import ede_derivative, scheduled_t
from dirnet_convert.binarize.estimators import Estimator
from dirnet_convert.binarize.sign import estimated_sign, hard_sign
from dirnet_convert.recipe import EstimatorKind, EstimatorOptions

SEED = 7
ZERO = torch.zeros(1)


def _values(count: int = 1000) -> Tensor:
    print(f"seed {SEED}")
    return torch.randn(count, generator=torch.Generator().manual_seed(SEED))


def _gradient(estimator: Estimator, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    estimator(x, torch.zeros(1, dtype=x.dtype)).sum().backward()
    assert x.grad is not None
    return x.grad


def test_forward_decides_by_comparison_in_every_kind() -> None:
    infinity, nan = math.inf, math.nan
    x = torch.tensor([-0.0, 0.0, infinity, infinity, -infinity, nan, 1.0, 1e-45, 1.0, 3.0])
    threshold = torch.tensor([0.0, -0.0, infinity, nan, -infinity, 0.0, 1.0, 0.0, 1.0000001, -4.0])
    expected = torch.tensor([1.0, 1, 1, -1, 1, -1, 1, 1, -1, 1])
    assert torch.equal(hard_sign(x, threshold), expected)
    for kind in EstimatorKind:
        assert torch.equal(Estimator(kind)(x, threshold), expected)


def test_gradients_follow_the_formulas() -> None:
    x = _values()
    assert torch.equal(_gradient(Estimator(EstimatorKind.STE), x), (x.abs() <= 1).float())
    torch.testing.assert_close(
        _gradient(Estimator(EstimatorKind.POLYNOMIAL), x), torch.where(x.abs() < 1, 2 - 2 * x.abs(), 0.0)
    )
    for progress in (0.0, 0.3, 0.5, 0.8, 1.0):
        estimator = Estimator(EstimatorKind.EDE)
        estimator.set_progress(progress)
        t = 0.1 * 100**progress
        expected = max(1 / t, 1) * t * (1 - torch.tanh(t * x) ** 2)
        torch.testing.assert_close(_gradient(estimator, x), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", list(EstimatorKind))
def test_gradients_are_the_slopes_of_their_smooth_functions(kind: EstimatorKind) -> None:
    t, k, step = torch.tensor(3.0, dtype=torch.double), torch.tensor(1.0, dtype=torch.double), 1e-6
    slope_at_bound = (1 / 3) * 0.1 ** (1 / 3 - 1)

    def smooth(x: Tensor) -> Tensor:
        if kind is EstimatorKind.STE:
            return x.clamp(-1, 1)
        if kind is EstimatorKind.RESTE:
            # The slope is that of the power from 0.1 on, straight below, and there is none beyond 1.
            return x.sign() * (
                x.abs().clamp(0.1, 1) ** (1 / t) + slope_at_bound * (x.abs() - 0.1).clamp(max=0)
            )
        if kind is EstimatorKind.POLYNOMIAL:
            inner = torch.where(x < 0, 2 * x + x * x, 2 * x - x * x)
            return torch.where(x.abs() < 1, inner, x.sign())
        return k * torch.tanh(t * x)

    x = _values().double()
    x = x[((x.abs() - 1).abs() > 1e-4) & ((x.abs() - 0.1).abs() > 1e-4)].requires_grad_()
    estimated_sign(x, torch.zeros(1, dtype=torch.double), t, k, kind).sum().backward()
    with torch.no_grad():
        numeric = (smooth(x + step) - smooth(x - step)) / (2 * step)
    torch.testing.assert_close(x.grad, numeric, rtol=1e-6, atol=1e-6)


def test_threshold_gradient_is_minus_the_sum_over_its_channel() -> None:
    x = _values(2 * 3 * 4 * 5).view(2, 3, 4, 5).requires_grad_()
    threshold = torch.tensor([-0.2, 0.0, 0.3]).view(3, 1, 1).requires_grad_()
    weights = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(SEED))
    (Estimator(EstimatorKind.EDE)(x, threshold) * weights).sum().backward()
    assert x.grad is not None and threshold.grad is not None
    torch.testing.assert_close(threshold.grad, -x.grad.sum((0, 2, 3)).view(3, 1, 1))


def test_stage_one_has_slope_one_and_stage_two_amplitude_one() -> None:
    for progress in (0.0, 0.2, 0.49, 0.51, 0.9, 1.0):
        estimator = Estimator(EstimatorKind.EDE)
        estimator.set_progress(progress)
        t, k = estimator.t.item(), estimator.k.item()
        if t < 1:
            assert k * t == pytest.approx(1.0)
        else:
            assert k == 1
        assert ede_derivative(torch.zeros(()), estimator.t, estimator.k) == pytest.approx(max(1.0, t))


def test_slope_is_even_and_integrates_to_twice_k() -> None:
    for t_value in (0.1, 1.0, 10.0):
        t = torch.tensor(t_value, dtype=torch.double)
        k = torch.tensor(max(1 / t_value, 1.0), dtype=torch.double)
        x = torch.linspace(-20 / t_value, 20 / t_value, 20001, dtype=torch.double)
        slope = ede_derivative(x, t, k)
        torch.testing.assert_close(slope, slope.flip(0))
        assert torch.trapezoid(slope, x).item() == pytest.approx(2 * k.item(), rel=1e-6)


def test_slope_is_right_where_it_is_small() -> None:
    x = torch.linspace(-40.0, 40.0, 8001)
    slope = ede_derivative(x, torch.tensor(1.0), torch.tensor(1.0))
    torch.testing.assert_close(slope.double(), x.double().cosh() ** -2, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("kind", list(EstimatorKind))
def test_infinite_values_get_no_gradient(kind: EstimatorKind) -> None:
    estimator = Estimator(kind)
    for progress in (0.0, 0.5, 1.0):
        estimator.set_progress(progress)
        assert torch.equal(_gradient(estimator, torch.tensor([float("-inf"), float("inf")])), torch.zeros(2))


def test_stage_two_begins_where_the_logarithm_says() -> None:
    assert scheduled_t(0.5, 0.1, 10.0) == pytest.approx(1.0)
    assert scheduled_t(2 / 3, 0.01, 10.0) == pytest.approx(1.0)
    assert scheduled_t(0.75, 0.001, 10.0) == pytest.approx(1.0)


def test_dte_with_epsilon_zero_is_ede_bit_for_bit() -> None:
    x = _values()
    dte, ede = Estimator(EstimatorKind.DTE, epsilon=0.0), Estimator(EstimatorKind.EDE)
    for progress in (0.0, 0.123, 0.5, 0.77, 1.0):
        for estimator in (dte, ede):
            estimator.observe(x)
            estimator.set_progress(progress)
        assert torch.equal(dte.t, ede.t) and torch.equal(dte.k, ede.k)
        assert torch.equal(_gradient(dte, x), _gradient(ede, x))


@pytest.mark.parametrize(
    ("epsilon", "t_end"), [(0.05, 10.0), (0.1, 7.96), (0.2, 3.95), (0.5, 1.48), (0.9, 1.0)]
)
def test_dte_keeps_a_share_epsilon_of_normal_values_updatable(epsilon: float, t_end: float) -> None:
    estimator = Estimator(EstimatorKind.DTE, epsilon=epsilon)
    x = _values(60000)
    estimator.observe(x)
    estimator.set_progress(1.0)
    assert estimator.t.item() == pytest.approx(t_end, rel=0.03)
    if epsilon < 0.6:
        assert (x.abs() <= 1 / estimator.t).float().mean() >= epsilon - 1e-3


def test_dte_never_holds_stage_one_back() -> None:
    estimator = Estimator(EstimatorKind.DTE, epsilon=0.5)
    estimator.observe(100 * _values())
    for progress in (0.0, 0.3, 0.499):
        estimator.set_progress(progress)
        assert estimator.t.item() == pytest.approx(scheduled_t(progress, 0.1, 10.0))


def test_quantile_is_the_kth_smallest_magnitude() -> None:
    x = _values(1001)
    assert magnitude_quantile(x, 0.1) == x.abs().sort().values[99]
    assert (x.abs() <= magnitude_quantile(x, 0.37)).float().mean() == pytest.approx(0.37, abs=1e-3)
    assert magnitude_quantile(torch.randn(500_000), 0.5).item() == pytest.approx(0.6745, abs=0.02)


@pytest.mark.parametrize("shape", [(32, 16, 32, 32), (256, 256, 3, 3)])
def test_quantile_of_a_sample_sees_every_column(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    x[..., 0] = 0.0
    share = 1 / shape[-1]
    assert magnitude_quantile(x, 0.8 * share) == 0.0
    assert magnitude_quantile(x, 1.2 * share) == 1.0


def test_gradual_blends_while_training_and_never_in_evaluation() -> None:
    x = _values()
    estimator = Estimator(EstimatorKind.STE, gradual=0.5)
    torch.testing.assert_close(estimator(x, ZERO), x)
    estimator.set_progress(0.25)
    torch.testing.assert_close(estimator(x, ZERO), 0.5 * x + 0.5 * hard_sign(x))
    assert torch.equal(estimator.eval()(x, ZERO), hard_sign(x))
    estimator.train().set_progress(0.5)
    assert torch.equal(estimator(x, ZERO), hard_sign(x))


def test_window_widens_the_slope() -> None:
    x = torch.tensor([1.2])
    assert _gradient(Estimator(EstimatorKind.STE, window=1.5), x) == 1
    assert _gradient(Estimator(EstimatorKind.POLYNOMIAL, window=1.5), x) == pytest.approx(0.4)


def test_state_is_saved_with_the_module() -> None:
    before = Estimator.for_weights(EstimatorOptions())
    before.observe(_values())
    before.set_progress(0.9)
    after = Estimator.for_weights(EstimatorOptions())
    after.load_state_dict(before.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(before.buffers(), after.buffers(), strict=True))
    assert torch.equal(_gradient(before, _values()), _gradient(after, _values()))


def test_power_grows_from_the_straight_through_estimator() -> None:
    x = _values()
    estimator = Estimator(EstimatorKind.RESTE, window=1.5, power_max=3.0)
    straight = Estimator(EstimatorKind.STE, window=1.5)
    assert torch.equal(_gradient(estimator, x), _gradient(straight, x))
    for progress, power in ((0.25, 1.5), (0.5, 2.0), (1.0, 3.0)):
        estimator.set_progress(progress)
        assert estimator.t.item() == pytest.approx(power)
        expected = (1 / power) * x.abs().clamp(min=0.1) ** (1 / power - 1) * (x.abs() <= 1.5)
        torch.testing.assert_close(_gradient(estimator, x), expected)
    assert _gradient(estimator, torch.zeros(3)).isfinite().all()


def test_inputs_take_their_own_numbers_where_they_have_them() -> None:
    options = EstimatorOptions(
        t_min=0.2, t_max=8.0, epsilon=0.3, input_t_min=0.01, input_t_max=4.0, input_epsilon=0.0
    )
    weights, inputs = Estimator.for_weights(options), Estimator.for_inputs(options)
    assert (weights.t_min, weights.t_max, weights.epsilon, weights.window) == (0.2, 8.0, 0.3, 1.0)
    assert (inputs.t_min, inputs.t_max, inputs.epsilon, inputs.window) == (0.01, 4.0, 0.0, 1.0)
    assert weights.needs_quantile and not inputs.needs_quantile
    assert Estimator.for_inputs(EstimatorOptions(window=2.0, input_window=0.5)).window == 0.5
    same = Estimator.for_inputs(EstimatorOptions(t_min=0.2, t_max=8.0, epsilon=0.3))
    assert (same.t_min, same.t_max, same.epsilon) == (0.2, 8.0, 0.3)


@pytest.mark.parametrize(("t", "share"), [(1.0, 0.931), (3.16, 0.554), (6.31, 0.338), (10.0, 0.235)])
def test_share_of_normal_values_that_receives_gradient(t: float, share: float) -> None:
    """Known for a slope of at least 0.1: it falls as t grows."""
    estimator = Estimator(EstimatorKind.EDE)
    estimator.set_progress(math.log10(t / 0.1) / 2)
    assert estimator.t.item() == pytest.approx(t)
    assert estimator.receiving_share(_values(100_000)) == pytest.approx(share, abs=5e-3)


def test_what_is_still_real_receives_gradient() -> None:
    estimator = Estimator(EstimatorKind.STE, window=0.01, gradual=0.5)
    assert estimator.receiving_share(_values()) == 1.0
    estimator.set_progress(0.25)
    assert estimator.receiving_share(_values()) == 1.0
    estimator.set_progress(0.5)
    assert estimator.receiving_share(_values()) < 0.05
