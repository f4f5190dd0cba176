"""The estimator of one layer: which slope stands in for sign()'s, and its state while training goes on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dirnet_convert.binarize.dte import magnitude_quantile, two_stage_k, two_stage_t
from dirnet_convert.binarize.ede import scheduled_t
from dirnet_convert.binarize.fading import scheduled_blend
from dirnet_convert.binarize.sign import estimated_sign, hard_sign, slope_of
from dirnet_convert.recipe import EstimatorKind, EstimatorOptions

# A value counts as one that receives gradient where the slope is at least this share of the straight-through
# one.
RECEIVING_SLOPE = 0.1


class Estimator(nn.Module):
    """sign(x - threshold) whose backward pass is one of STE, POLYNOMIAL, EDE, DTE, RESTE.

    ==========  =========================  ==============================================
    kind        dL/dx = dL/dy * ...        in
    ==========  =========================  ==============================================
    STE         1 where abs(x) <= window   sign.ste_derivative
    POLYNOMIAL  max(0, 2 - 2 abs(x))       sign.polynomial_derivative
    EDE         k*t*(1 - tanh(t*x)^2)      ede.ede_derivative, t by the clock
    DTE         the same                   dte.two_stage_t, t by the clock and the layer
    RESTE       (1/o) abs(x)^(1/o - 1)     sign.power_derivative, o by the clock
    ==========  =========================  ==============================================

    Its state lies in scalar buffers: ``t`` (RESTE's power o) and ``k``; ``quantile``, DTE's epsilon-quantile
    of |x|, 0 before it is known (it moves slowly, so it is measured now and then on one batch rather than
    sorted at every step); and ``blend``, the share of sign() in the training output. While that is below 1 it
    ``fades``: over the first ``gradual`` of the training, or where values stay real for a while.

    >>> estimator = Estimator(EstimatorKind.EDE)
    >>> estimator.set_progress(0.5)
    >>> x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    >>> y = estimator(x, torch.zeros(1))
    >>> y.sum().backward()
    >>> y.detach(), x.grad
    (tensor([-1.,  1.,  1.]), tensor([0.4200, 1.0000, 0.4200]))
    """

    t: Tensor
    k: Tensor
    quantile: Tensor
    blend: Tensor
    fades: bool
    """Whether ``blend`` is below 1; no tensor, so that a compiled step leaves out what has ended."""

    def __init__(
        self,
        kind: EstimatorKind,
        *,
        t_min: float = 0.1,
        t_max: float = 10.0,
        epsilon: float = 0.1,
        window: float = 1.0,
        power_max: float = 3.0,
        gradual: float = 0.0,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.t_min, self.t_max, self.epsilon = t_min, t_max, epsilon
        self.window, self.power_max, self.gradual = window, power_max, gradual
        for name in ("t", "k", "quantile", "blend"):
            self.register_buffer(name, torch.zeros(()))
        self.set_progress(0.0)

    @classmethod
    def for_weights(cls, options: EstimatorOptions) -> Estimator:
        """Build the estimator of a layer's weights."""
        return cls(
            options.weights,
            t_min=options.t_min,
            t_max=options.t_max,
            epsilon=options.epsilon,
            window=options.window,
            power_max=options.power_max,
            gradual=options.gradual_weights,
        )

    @classmethod
    def for_inputs(cls, options: EstimatorOptions) -> Estimator:
        """Build the estimator of a layer's inputs."""
        return cls(
            options.inputs,
            t_min=options.input_t_min or options.t_min,
            t_max=options.input_t_max or options.t_max,
            epsilon=options.epsilon if options.input_epsilon < 0.0 else options.input_epsilon,
            window=options.input_window or options.window,
            power_max=options.power_max,
            gradual=options.gradual_inputs,
        )

    @property
    def needs_quantile(self) -> bool:
        """Whether the layer's distribution plays a part: DTE with epsilon > 0."""
        return self.kind is EstimatorKind.DTE and self.epsilon > 0.0

    @torch.no_grad()
    def set_progress(self, fraction: float, blend: float | None = None) -> None:
        """Move t, k and blend to where they stand after ``fraction`` in [0, 1] of the training.

        ``blend`` sets the share of sign() in the training output, whatever ``gradual`` says.
        """
        if self.kind is EstimatorKind.RESTE:
            # o_i = 1 + (i / N) * (o_end - 1)
            self.t.fill_(1.0 + fraction * (self.power_max - 1.0))
        else:
            self.t.copy_(two_stage_t(scheduled_t(fraction, self.t_min, self.t_max), self.quantile))
        self.k.copy_(two_stage_k(self.t))
        if blend is None:
            blend = scheduled_blend(fraction, self.gradual)
        self.blend.fill_(blend)
        self.fades = blend < 1.0

    @torch.no_grad()
    def observe(self, distance: Tensor) -> None:
        """Take the epsilon-quantile of ``distance`` = x - threshold; the next set_progress heeds it."""
        if self.needs_quantile:
            self.quantile.copy_(magnitude_quantile(distance, self.epsilon))

    @torch.no_grad()
    def receiving_share(self, distance: Tensor) -> float:
        """Return the share of ``distance`` = x - threshold whose slope is at least RECEIVING_SLOPE."""
        slope = slope_of(distance, self.t, self.k, self.kind, self.window)
        if self.fades:
            slope = torch.lerp(torch.ones_like(slope), slope, self.blend)
        return (slope >= RECEIVING_SLOPE).float().mean().item()

    def forward(self, x: Tensor, threshold: Tensor, real: Tensor | None = None) -> Tensor:
        """Return -1 and +1 like ``x``; while training, where it fades, blend*sign(u) + (1 - blend)*real.

        ``real`` is what stands for ``x`` where nothing is binary yet, ``x`` itself if absent.
        """
        if not self.training and not torch.is_grad_enabled():
            return hard_sign(x, threshold)
        signs = estimated_sign(x, threshold, self.t, self.k, self.kind, self.window)
        if not self.training or not self.fades:
            return signs
        return torch.lerp(x if real is None else real, signs, self.blend)

    def extra_repr(self) -> str:
        return self.kind.value
