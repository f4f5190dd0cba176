"""A binary convolution whose sums come from the compiled kernels, forward and backward."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dirnet_convert.binarize.estimators import Estimator
from dirnet_convert.binarize.padding import Padding
from dirnet_convert.binarize.sign import hard_sign, slope_of
from dirnet_convert.recipe import EstimatorKind


class Arithmetic(enum.StrEnum):
    """What multiplies signs: PyTorch's float convolutions, or the compiled kernels."""

    TORCH = "torch"
    KERNELS = "kernels"


@dataclass(frozen=True)
class ConvArguments:
    """Stride, zeros around the input (top, left, bottom, right), dilation and groups of a convolution."""

    stride: tuple[int, int]
    padding: Padding
    dilation: tuple[int, int]
    groups: int

    def of_operator(self) -> tuple[list[int], list[int], list[int], int]:
        """Return the four as PyTorch's operators take them."""
        return list(self.stride), list(self.padding), list(self.dilation), self.groups


# Sixteen channels of a group lie side by side in the kernels of the backward pass: with fewer than half of
# them the float convolution is faster. Sums over more pixels or terms would need more than 32 bits (as
# kernels/include/dirnet/training.h says).
_LEAST_GROUP_CHANNELS = 8
_MOST_PIXELS = 65_000
_MOST_TERMS = 65_000


def kernel_conv2d(
    x: Tensor, threshold: Tensor, weight: Tensor, estimator: Estimator, arguments: ConvArguments
) -> Tensor:
    """Return conv2d(sign(x - threshold), weight), with the slope of ``estimator`` in its backward pass.

    The result, and the gradient of the signs, have the type of torch.autocast, or float32.

    ``x`` is (N, C, H, W), ``threshold`` (C, 1, 1), ``weight`` (O, C / groups, kh, kw) of values +-s with one
    s for each of O. The sums are those of dirnet::binary_conv2d, which runtime.torch_operator defines, and
    the gradients those of dirnet::binary_conv2d_backward. In bfloat16, which processors multiply as fast as
    whole numbers of 16 bits, they are PyTorch's, and for what the operator is not made for, such as a
    depthwise convolution.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    return _KernelConv.apply(
        x,
        threshold,
        weight,
        estimator.t,
        estimator.k,
        estimator.kind,
        estimator.window,
        arguments,
        dtype,
    )


class _KernelConv(torch.autograd.Function):
    """Sign and convolution in one: what is kept for the backward pass is x itself."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        threshold: Tensor,
        weight: Tensor,
        t: Tensor,
        k: Tensor,
        kind: EstimatorKind,
        window: float,
        arguments: ConvArguments,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(x, threshold, weight, t, k)
        ctx.kind, ctx.window, ctx.arguments, ctx.dtype = kind, window, arguments, dtype
        return torch.ops.dirnet.binary_conv2d(
            x,
            threshold.flatten(),
            weight,
            *arguments.of_operator(),
            dtype,
        )

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, threshold, weight, t, k = ctx.saved_tensors
        gradient, arguments = gradient.to(ctx.dtype), ctx.arguments
        fast = _kernels_have_gradients(gradient, weight, arguments.groups)
        gradients = _kernel_gradients if fast else _torch_gradients
        to_signs, to_weight = gradients(gradient, x, threshold, weight, arguments)
        # As in sign.estimated_sign.
        to_x = to_signs * slope_of(x - threshold, t, k, ctx.kind, ctx.window)
        to_threshold = -to_x.sum_to_size(threshold.shape) if ctx.needs_input_grad[1] else None
        return to_x.to(x.dtype), to_threshold, to_weight.float(), *(None,) * 6


def _kernels_have_gradients(gradient: Tensor, weight: Tensor, groups: int) -> bool:
    outs, ins, *kernel = weight.shape
    return (
        gradient.dtype is torch.float32
        and min(ins, outs // groups) >= _LEAST_GROUP_CHANNELS
        and math.prod(gradient.shape[2:]) <= _MOST_PIXELS
        and outs // groups * math.prod(kernel) <= _MOST_TERMS
    )


def _kernel_gradients(
    gradient: Tensor, x: Tensor, threshold: Tensor, weight: Tensor, arguments: ConvArguments
) -> tuple[Tensor, Tensor]:
    return torch.ops.dirnet.binary_conv2d_backward(
        gradient,
        x,
        threshold.flatten(),
        weight,
        *arguments.of_operator(),
    )


def _torch_gradients(
    gradient: Tensor, x: Tensor, threshold: Tensor, weight: Tensor, arguments: ConvArguments
) -> tuple[Tensor, Tensor]:
    g, dtype = arguments, gradient.dtype
    top, left, bottom, right = g.padding
    signs, padding = hard_sign(x, threshold).to(dtype), (top, left)
    uneven = (top, left) != (bottom, right)
    if uneven:
        signs, padding = functional.pad(signs, (left, right, top, bottom)), (0, 0)
    to_signs, to_weight, _ = torch.ops.aten.convolution_backward(
        *(gradient, signs, weight.to(dtype), None),
        *(list(g.stride), list(padding), list(g.dilation), False, [0, 0], g.groups),
        [True, True, False],
    )
    if uneven:
        to_signs = to_signs[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    return to_signs, to_weight
