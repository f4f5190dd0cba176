"""Bounds of latent weights: values far out would need many steps to change their sign."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dirnet_convert.recipe import EstimatorOptions, WeightClip


@torch.no_grad()
def clip_weight(weight: Tensor, options: EstimatorOptions, fraction: float) -> None:
    """Hold ``weight`` (O, ...) in place as ``options.clip`` says, after ``fraction`` of the training.

    BOUND holds every weight within +-clip_bound (BinaryConnect, Courbariaux et al., NIPS 2015); QUANTILE
    within +-Q of its channel's mean, Q for a tau that moves evenly from clip_tau_min to clip_tau_max.

    Source: Q = -E|w| * ln(2 - 2 tau) of ReCU (Xu et al., ICCV 2021), the tau-quantile of a Laplace
    distribution. ReCU clamps what sign() sees in the forward pass; here the latent weights themselves move.
    """
    if options.clip is WeightClip.BOUND:
        weight.clamp_(-options.clip_bound, options.clip_bound)
    elif options.clip is WeightClip.QUANTILE:
        tau = options.clip_tau_min + fraction * (options.clip_tau_max - options.clip_tau_min)
        rows = weight.flatten(1)
        mean = rows.mean(dim=1, keepdim=True)
        reach = (rows - mean).abs().mean(dim=1, keepdim=True) * -math.log(2.0 - 2.0 * tau)
        weight.copy_(torch.minimum(torch.maximum(rows, mean - reach), mean + reach).view_as(weight))
