"""Batch normalization of values whose channels lie last."""

from __future__ import annotations

from torch import Tensor, nn


class LastAxisBatchNorm(nn.BatchNorm1d):
    """Batch norm over the last axis of (N, ..., C)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(0, -2)).reshape(input.shape)
