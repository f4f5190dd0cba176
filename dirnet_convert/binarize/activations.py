"""Activations of binarized networks that PyTorch does not have."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ShiftedPReLU(nn.Module):
    """PReLU(x + shift) with a shift and a slope for each channel of (N, C, ...).

    Source: RPReLU of ReActNet (Liu et al., ECCV 2020), without its second shift, which the
    threshold of the sign() that follows does as well.

    >>> ShiftedPReLU(1)(torch.tensor([[-4.0]])).item()
    -1.0
    """

    def __init__(self, channels: int, slope: float = 0.25) -> None:
        super().__init__()
        self.channels = channels
        self.shift = nn.Parameter(torch.zeros(channels))
        self.weight = nn.Parameter(torch.full((channels,), slope))

    def forward(self, x: Tensor) -> Tensor:
        shift = self.shift.view(-1, *(1 for _ in range(x.dim() - 2)))
        shifted = x + shift
        # Under autocast x may be of less precision than the slopes, which prelu does not accept.
        return functional.prelu(shifted, self.weight.to(shifted.dtype))

    def extra_repr(self) -> str:
        return str(self.channels)
