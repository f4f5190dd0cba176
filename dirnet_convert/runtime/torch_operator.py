"""The kernels' binary convolution and its gradients as PyTorch's operators, for training on processors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from dirnet_convert.errors import DirnetError
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
        DirnetError: the compiled library is missing, or the shapes do not fit.
    """
    geometry = _geometry(x, weight, stride, padding, dilation, groups)
    operands = _operands(x, threshold, weight, groups)
    size = geometry.output_size(*x.shape[2:])
    y = x.new_empty(x.shape[0], *size, weight.shape[0], dtype=nearest_type(dtype))
    library, isa = library_and_isa()
    status = library.dirnet_sign_conv2d(
        *(isa, *_addresses(operands), _c_shape(geometry, x, weight)),
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
        DirnetError: the compiled library is missing, or the shapes do not fit.
    """
    geometry = _geometry(x, weight, stride, padding, dilation, groups)
    values, _, weights = operands = _operands(x, threshold, weight, groups)
    expected = (x.shape[0], weight.shape[0], *geometry.output_size(*x.shape[2:]))
    if gradient.shape != expected:
        raise DirnetError(f"The gradient is {tuple(gradient.shape)}; that of this output is {expected}.")
    gradients = last(gradient.to(nearest_type(gradient.dtype)))
    to_signs = torch.empty_like(values, dtype=gradients.dtype)
    to_weights = torch.empty_like(weights)
    library, isa = library_and_isa()
    status = library.dirnet_sign_conv2d_backward(
        *(isa, *_addresses(operands), _c_shape(geometry, x, weight)),
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


def _operands(x: Tensor, threshold: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the three as the kernels read them; they must live as long as their addresses are used.

    Raises:
        DirnetError: there are not as many thresholds or weights as channels.
    """
    channels = x.shape[1]
    if threshold.shape != (channels,) or weight.shape[1] * groups != channels:
        raise DirnetError(
            f"{channels} channels in {groups} groups do not fit thresholds {tuple(threshold.shape)} and "
            f"weights {tuple(weight.shape)}."
        )
    values = last(x.to(nearest_type(x.dtype)))
    return values, threshold.to(torch.float32).contiguous(), last(weight.to(torch.float32))


def _addresses(operands: tuple[Tensor, Tensor, Tensor]) -> tuple[int, ...]:
    return (TYPES[operands[0].dtype], *(operand.data_ptr() for operand in operands))


def _c_shape(geometry: ConvGeometry, x: Tensor, weight: Tensor) -> ctypes.Array[ctypes.c_int64]:
    batch, _, height, width = x.shape
    return geometry.c_shape(batch, height, width, weight.shape[0])


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
