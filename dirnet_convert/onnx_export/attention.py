"""Attention over tensors of any rank, written as attention over four axes while a network is exported.

PyTorch's exporter translates scaled_dot_product_attention for (N, heads, L, E) alone; networks that attend
within windows call it on (N, windows, heads, L, E).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class AttentionOfAnyRank(TorchFunctionMode):
    """While active, attention is computed with all leading axes but the heads' as one."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        keywords = kwargs or {}
        attends = func is functional.scaled_dot_product_attention and len(args) >= 3
        if not attends or args[0].dim() == 4:
            return func(*args, **keywords)
        return _attend(*args, **keywords)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *rest: Any, **keywords: Any
) -> Tensor:
    if attn_mask is not None:
        attn_mask = _four_axes(attn_mask.expand(*query.shape[:-1], key.shape[-2]))
    folded = functional.scaled_dot_product_attention(
        _four_axes(query), _four_axes(key), _four_axes(value), attn_mask, *rest, **keywords
    )
    return folded.reshape(*query.shape[:-1], value.shape[-1])


def _four_axes(x: Tensor) -> Tensor:
    return x.flatten(0, -4) if x.dim() > 4 else x.reshape(*(1 for _ in range(4 - x.dim())), *x.shape)
