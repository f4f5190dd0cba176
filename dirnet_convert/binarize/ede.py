"""Error decay estimator (EDE): a tanh that sharpens into sign() while training goes on."""

from __future__ import annotations

import torch
from torch import Tensor


def scheduled_t(progress: float, t_min: float, t_max: float) -> float:
    """Return EDE's t at ``progress`` in [0, 1]: geometric from ``t_min`` to ``t_max``.

    Stage 1 (t < 1, so k*t = 1) keeps weights updatable; stage 2 (t >= 1, so k = 1) sharpens towards sign().

    Source: EDE of IR-Net (Qin et al., CVPR 2020), from its public code, which steps once an epoch and so
    never quite reaches t_max.

    >>> [round(scheduled_t(progress, 0.1, 10.0), 6) for progress in (0.0, 0.5, 1.0)]
    [0.1, 1.0, 10.0]
    """
    # t_i = T_min * 10^(i/N * log10(T_max / T_min))
    return t_min * (t_max / t_min) ** progress


def ede_derivative(distance: Tensor, t: Tensor, k: Tensor) -> Tensor:
    """Return g'(x) = k*t*(1 - tanh(t*x)^2), the slope of g(x) = k*tanh(t*x); nothing is clipped.

    Its integral over all x is 2k, and g'(0) = k*t = max(1, t).

    Source: the backward pass of IR-Net's public code.

    >>> ede_derivative(torch.tensor([0.0, 1.0]), torch.tensor(1.0), torch.tensor(1.0))
    tensor([1.0000, 0.4200])
    """
    # 1 - tanh(u)^2 = 4e / (1 + e)^2 with e = exp(-2|u|), for either sign of u: a third of the time of a tanh,
    # and no difference of two numbers near 1, which is all rounding where the slope is small.
    decay = torch.exp(-2.0 * (t * distance).abs())
    return 4.0 * k * t * decay / (1.0 + decay).square()
