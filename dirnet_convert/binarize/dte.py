"""Distribution-sensitive two-stage estimator (DTE): EDE whose t each layer's distribution may hold back.

RECONSTRUCTION. The DIR-Net abstract says that DTE considers "the updating capability and accurate gradient"
jointly and is sensitive to the distribution; its formula was not at hand. What stands here is a form that
agrees with both, with the share epsilon as an option and epsilon = 0 as plain EDE.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Enough values for an epsilon-quantile that is right within about one percent of the values' spread.
SAMPLE = 65536


def two_stage_t(scheduled: float, quantile: Tensor) -> Tensor:
    """Return DTE's t: the scheduled one, held where a share epsilon of the values still lies inside 1/t.

    ``quantile`` is the epsilon-quantile of the layer's |x| (0: nothing is known, or epsilon is 0). It never
    holds stage 1 back, where t < 1.

    Source: reconstruction (see the module); t = scheduled for quantile 0 is IR-Net's EDE exactly.

    >>> two_stage_t(10.0, torch.tensor(0.25)), two_stage_t(10.0, torch.tensor(0.0))
    (tensor(4.), tensor(10.))
    """
    # t_e = 1 / quantile_epsilon(|x|);  t = min(t_scheduled, max(1, t_e))
    return quantile.reciprocal().clamp(min=1.0).clamp(max=scheduled)


def two_stage_k(t: Tensor) -> Tensor:
    """Return k = max(1/t, 1): slope 1 at zero while t < 1, amplitude 1 from there on.

    Source: IR-Net's EDE (Qin et al., CVPR 2020), public code.

    >>> two_stage_k(torch.tensor([0.1, 1.0, 10.0]))
    tensor([10.,  1.,  1.])
    """
    return t.reciprocal().clamp(min=1.0)


def magnitude_quantile(values: Tensor, epsilon: float) -> Tensor:
    """Return the ``epsilon``-quantile of |values| as a scalar: that share of them lies at or below it.

    Taken from an even sample of at most SAMPLE values, so that it costs about the same for every layer.

    >>> magnitude_quantile(torch.arange(-10.0, 0.0), 0.3)
    tensor(3.)
    """
    flat = values.detach().flatten()
    stride = -(-flat.numel() // SAMPLE)
    # A stride that shares a factor with an axis would see some columns, or some taps of a kernel, only.
    while stride > 1 and math.gcd(stride, flat.numel()) > 1:
        stride += 1
    sample = flat[::stride].abs()
    rank = min(max(round(epsilon * sample.numel()), 1), sample.numel())
    return torch.kthvalue(sample, rank).values
