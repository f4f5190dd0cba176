"""sign() against a threshold, with the slope of a smoother function in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dirnet_convert.binarize.ede import ede_derivative
from dirnet_convert.recipe import EstimatorKind

# Below this distance RESTE's slope stays what it is here.
POWER_BOUND = 0.1


def hard_sign(x: Tensor, threshold: Tensor | float = 0.0) -> Tensor:
    """Return +1 where x >= threshold and -1 elsewhere, NaN included; both zeros count as +1.

    >>> hard_sign(torch.tensor([-0.0, 0.5, -2.0, float("nan")]))
    tensor([ 1.,  1., -1., -1.])
    """
    # The comparison itself, not the difference: inf - inf is NaN, and small differences may be flushed to 0.
    # 2b - 1 takes a third of the time of a choice between two constants.
    return (x >= threshold).to(x.dtype).mul_(2.0).sub_(1.0)


def ste_derivative(distance: Tensor, window: float = 1.0) -> Tensor:
    """Return 1 where |x| <= window and 0 elsewhere: the slope of clip(x, -window, window).

    Source: straight-through estimator, Hubara et al., "Binarized Neural Networks", NIPS 2016.

    >>> ste_derivative(torch.tensor([0.0, 1.0, 1.5]))
    tensor([1., 1., 0.])
    """
    return (distance.abs() <= window).to(distance.dtype)


def polynomial_derivative(distance: Tensor, window: float = 1.0) -> Tensor:
    """Return max(0, 2 - 2|x| / window), the slope of a piecewise quadratic that joins -1 and +1 for window 1.

    Source: Bi-Real Net (Liu et al., ECCV 2018), ApproxSign; ReActNet uses the same.

    >>> polynomial_derivative(torch.tensor([0.0, 0.5, 1.5]))
    tensor([2., 1., 0.])
    """
    return (2.0 - (2.0 / window) * distance.abs()).clamp(min=0.0)


def power_derivative(distance: Tensor, power: Tensor, window: float = 1.5) -> Tensor:
    """Return (1/o) * |x|^(1/o - 1) for the power o where |x| <= window, and 0 elsewhere.

    It is the slope of sign(x) * |x|^(1/o): straight-through for o = 1, nearer to sign() the larger o. As that
    has no bound near 0, it stays what it is at |x| = 0.1 from there on.

    Source: ReSTE (Wu et al., ICCV 2023), from its public code; the place of the bound is ours.

    >>> power_derivative(torch.tensor([0.0, 0.1, 1.0, 2.0]), torch.tensor(2.0))
    tensor([1.5811, 1.5811, 0.5000, 0.0000])
    """
    magnitude = distance.abs()
    exponent = power.reciprocal()
    # |x|^p = exp(p * log|x|), in half of a power's time; clamped, as 0 * log(inf) is NaN.
    logarithm = magnitude.clamp(POWER_BOUND, max(window, POWER_BOUND)).log()
    slope = exponent * torch.exp((exponent - 1.0) * logarithm)
    return slope * (magnitude <= window)


def slope_of(distance: Tensor, t: Tensor, k: Tensor, kind: EstimatorKind, window: float) -> Tensor:
    """Return the slope of ``kind`` at ``distance`` = x - threshold; RESTE's power is ``t``."""
    if kind is EstimatorKind.STE:
        return ste_derivative(distance, window)
    if kind is EstimatorKind.POLYNOMIAL:
        return polynomial_derivative(distance, window)
    if kind is EstimatorKind.RESTE:
        return power_derivative(distance, t, window)
    return ede_derivative(distance, t, k)


class _EstimatedSign(torch.autograd.Function):
    """Subtraction, sign and slope in one, so that only x is kept and the backward pass is one kernel."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, threshold: Tensor, t: Tensor, k: Tensor, kind: EstimatorKind, window: float
    ) -> Tensor:
        ctx.save_for_backward(x, threshold, t, k)
        ctx.kind, ctx.window = kind, window
        return hard_sign(x, threshold)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, threshold, t, k = ctx.saved_tensors
        # y = sign(u), u = x - threshold:  dL/dx = dL/dy * g'(u);  dL/dthreshold = -sum of dL/dx over what it
        # served.
        distance = x - threshold
        to_x = gradient * slope_of(distance, t, k, ctx.kind, ctx.window)
        to_threshold = -to_x.sum_to_size(threshold.shape) if ctx.needs_input_grad[1] else None
        return to_x, to_threshold, None, None, None, None


def estimated_sign(
    x: Tensor, threshold: Tensor, t: Tensor, k: Tensor, kind: EstimatorKind, window: float = 1.0
) -> Tensor:
    """Return sign(x - threshold) as -1 and +1, with the slope of ``kind`` in the backward pass.

    ``threshold`` is broadcast against ``x``; t and k are scalar tensors (EDE and DTE read them, RESTE t), so
    that a change of their values compiles nothing anew; ``window`` is the half-width of the slopes that end.

    >>> x = torch.tensor([-2.0, -0.5, 0.5], requires_grad=True)
    >>> one = torch.tensor(1.0)
    >>> estimated_sign(x, torch.zeros(1), one, one, EstimatorKind.STE).sum().backward()
    >>> x.grad
    tensor([0., 1., 1.])
    """
    return _EstimatedSign.apply(x, threshold, t, k, kind, window)
