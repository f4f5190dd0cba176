"""Attention over any number of axes is exported, for any batch, and computes what PyTorch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from dirnet_convert.onnx_export.exporter import export_float_onnx
from dirnet_convert.runtime.session import Kernels, load_session


class _Attention(nn.Module):
    """Makes queries, keys and values of some shape from an image, with or without a mask."""

    def __init__(self, shape: tuple[int, ...], mask: torch.Tensor | None) -> None:
        super().__init__()
        self.shape = shape
        self.mask = mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (x[:, i].reshape(-1, *self.shape) for i in range(3))
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=self.mask)
        return attended.flatten(1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(8, 32), (4, 8, 8), (2, 4, 8, 4), (2, 2, 2, 8, 4)])
def test_attention_of_any_rank(
    tmp_path: Path, generator: torch.Generator, shape: tuple[int, ...], masked: bool
) -> None:
    tokens = shape[-2]
    mask = torch.randn(tokens, tokens, generator=generator) if masked else None
    network = _Attention(shape, mask).eval()
    x = torch.randn(3, 3, 16, 16, generator=generator)
    export_float_onnx(network, x[:1], tmp_path / "model.onnx")
    session = load_session(tmp_path / "model.onnx", kernels=Kernels.STOCK)
    for batch in (x[:1], x):
        (got,) = session.run(None, {"input": batch.numpy()})
        np.testing.assert_allclose(got, network(batch).numpy(), rtol=0, atol=1e-5)
