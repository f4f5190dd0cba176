"""The kernels' binary convolution and its gradients as PyTorch's operators, for training on processors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dirnet_convert.runtime.kernels import ConvGeometry, checked_status
from dirnet_convert.runtime.torch_memory import (
    TYPES,
    channels_last,
    last,
    library_and_isa,
    nearest_type,
    thread_team,
)


@torch.library.custom_op("dirnet::binary_conv2d", mutates_args=(), device_types="cpu")
def binary_conv2d(
    x: Tensor,
    threshold: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    dtype: torch.dtype,
) -> Tensor:
    """Return conv2d(sign(x - threshold), weight) of ``x`` (N, C, H, W), zeros around it, as ``dtype``.

    ``threshold`` is (C,), ``weight`` (O, C / groups, kh, kw) of values +-s with one s for each of O;
    ``padding`` is (top, left, bottom, right). The sums are exact, then rounded to ``dtype``; they come as (N,
    O, H', W') in the channels-last layout.

    Raises:
        DirnetError: the compiled library is missing, or refuses the shapes.
    """
    batch, _, height, width = x.shape
    out_channels = weight.shape[0]
    geometry = _geometry(x, weight, stride, padding, dilation, groups)
    values = last(x.to(nearest_type(x.dtype)))
    weights, thresholds = last(weight.to(torch.float32)), threshold.to(torch.float32).contiguous()
    size = geometry.output_size(height, width)
    y = x.new_empty(batch, *size, out_channels, dtype=nearest_type(dtype))
    shape = geometry.c_shape(batch, height, width, out_channels)
    library, isa = library_and_isa()
    status = library.dirnet_sign_conv2d(
        *(isa, TYPES[values.dtype], values.data_ptr(), thresholds.data_ptr(), weights.data_ptr(), shape),
        *(TYPES[y.dtype], y.data_ptr(), *thread_team()),
    )
    checked_status(status)
    return channels_last(y.to(dtype))


@binary_conv2d.register_fake
def _(
    x: Tensor,
    threshold: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    dtype: torch.dtype,
) -> Tensor:
    size = _geometry(x, weight, stride, padding, dilation, groups).output_size(*x.shape[2:])
    return channels_last(x.new_empty(x.shape[0], *size, weight.shape[0], dtype=dtype))


@torch.library.custom_op("dirnet::binary_conv2d_backward", mutates_args=(), device_types="cpu")
def binary_conv2d_backward(
    gradient: Tensor,
    x: Tensor,
    threshold: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of sign(x - threshold) (N, C, H, W), of ``gradient``'s type, and of ``weight``.

    ``gradient`` (N, O, H', W') is that of dirnet::binary_conv2d's result; the rest is as there. It is rounded
    to 16 bits (see kernels/include/dirnet/training.h), and multiplied with signs exactly; the weights'
    gradients are float32.

    Raises:
        DirnetError: the compiled library is missing, or refuses the shapes.
    """
    batch, _, height, width = x.shape
    geometry = _geometry(x, weight, stride, padding, dilation, groups)
    values, gradients = last(x.to(nearest_type(x.dtype))), last(gradient.to(nearest_type(gradient.dtype)))
    weights, thresholds = last(weight.to(torch.float32)), threshold.to(torch.float32).contiguous()
    to_signs = torch.empty_like(values, dtype=gradients.dtype)
    to_weights = torch.empty_like(weights)
    shape = geometry.c_shape(batch, height, width, weight.shape[0])
    library, isa = library_and_isa()
    status = library.dirnet_sign_conv2d_backward(
        *(isa, TYPES[values.dtype], values.data_ptr(), thresholds.data_ptr(), weights.data_ptr(), shape),
        *(TYPES[gradients.dtype], gradients.data_ptr(), to_signs.data_ptr(), to_weights.data_ptr()),
        *thread_team(),
    )
    checked_status(status)
    return channels_last(to_signs.to(gradient.dtype)), channels_last(to_weights)


@binary_conv2d_backward.register_fake
def _(
    gradient: Tensor,
    x: Tensor,
    threshold: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = x.shape
    outs, ins, *kernel = weight.shape
    to_signs = gradient.new_empty(batch, height, width, channels)
    to_weights = weight.new_empty(outs, *kernel, ins, dtype=torch.float32)
    return channels_last(to_signs), channels_last(to_weights)


def _geometry(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> ConvGeometry:
    kernel = tuple(weight.shape[2:])
    return ConvGeometry(x.shape[1], kernel, tuple(stride), tuple(padding), tuple(dilation), groups)
