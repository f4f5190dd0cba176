"""Information maximization in the forward pass (IMB): balanced, standardized weights and their scale."""

from __future__ import annotations

import torch
from torch import Tensor


def balance_and_standardize(weight: Tensor) -> Tensor:
    """Return each output channel of ``weight`` (O, ...) with mean 0 and (unbiased) standard deviation 1.

    A constant channel becomes all zeros (sign(0) = +1), and a channel of a single weight is returned as
    it is, since balancing would leave nothing of it; neither gives a NaN in value or gradient.

    Source: Libra-PB of IR-Net (Qin et al., CVPR 2020), from its public code; DIR-Net's abstract
    (arXiv 2109.12338) names the same two steps, weight balance and standardization.

    >>> balance_and_standardize(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
    tensor([[-1.,  0.,  1.],
            [ 0.,  0.,  0.]])
    """
    rows = weight.flatten(1)
    if rows.shape[1] == 1:
        return weight
    # w_hat = w - mean(w);  w_std = w_hat / sqrt(sum(w_hat^2) / (n - 1)), over the n weights of a channel.
    balanced = rows - rows.mean(dim=1, keepdim=True)
    spread = balanced.std(dim=1, keepdim=True)
    constant = spread.detach() <= _rounding(rows)
    standardized = balanced / torch.where(constant, torch.ones_like(spread), spread)
    if not torch.is_grad_enabled():
        return standardized.masked_fill(constant, 0.0).view_as(weight)
    # Zero in value, yet with the gradient of w_hat, so that training can move a constant channel.
    return torch.where(constant, balanced - balanced.detach(), standardized).view_as(weight)


def standardize_unbalanced(weight: Tensor) -> Tensor:
    """Return each output channel of ``weight`` (O, ...) divided by its standard deviation, its mean kept.

    A convolution with it gives what one with ``weight`` gives, times a factor per channel, which batch
    normalization takes out again. The factor passes no gradient; that of a constant channel is 1.

    >>> standardize_unbalanced(torch.tensor([[2.0, 4.0, 6.0], [5.0, 5.0, 5.0]]))
    tensor([[1., 2., 3.],
            [5., 5., 5.]])
    """
    rows = weight.flatten(1)
    if rows.shape[1] == 1:
        return weight
    spread = rows.detach().std(dim=1, keepdim=True)
    spread = torch.where(spread <= _rounding(rows), torch.ones_like(spread), spread)
    return (rows / spread).view_as(weight)


def _rounding(rows: Tensor) -> Tensor:
    """Return the largest spread of each row (O, n) that is noise: the mean of n equal floats may be off."""
    return 4.0 * torch.finfo(rows.dtype).eps * rows.detach().abs().amax(dim=1, keepdim=True)


def power_of_two_scale(standardized: Tensor) -> Tensor:
    """Return the scale (O,) of each channel of ``standardized`` (O, ...): a power of two, without gradient.

    For balanced weights mean|w_std| <= sqrt((n - 1) / n) < 1, so the scale is at most 1. An all-zero channel
    gets 1, so that it can still learn.

    Source: the bit-shift scales of IR-Net's public code.

    >>> power_of_two_scale(torch.tensor([[0.9, -0.8], [0.4, -0.5], [0.0, 0.0]]))
    tensor([1.0000, 0.5000, 1.0000])
    """
    # s = round(log2(||w_std||_1 / n));  scale = 2^s.
    mean = standardized.detach().abs().flatten(1).mean(dim=1)
    mean = torch.where(mean > 0, mean, torch.ones_like(mean))
    # ldexp, not exp2: the result is the exact power of two in eager and in compiled code.
    return torch.ldexp(torch.ones_like(mean), torch.log2(mean).round())
