"""The kernels' binary convolution as PyTorch's operator dirnet::binary_conv2d, for training on processors."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dirnet_convert.runtime.isa import chosen_isa, isa_numbers
from dirnet_convert.runtime.kernels import ConvGeometry, checked_status
from dirnet_convert.runtime.library import c_interface

# Values of one tensor that fit into a core's second cache beside those of another.
_CHUNK_VALUES = 2**17


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

    ``threshold`` is (C,), ``weight`` (O, C / groups, kh, kw) of values +-s with one s for each of O, both
    float32; ``padding`` is (top, left, bottom, right). The sums are exact; they come as (N, O, H', W') in the
    channels-last layout.

    Raises:
        DirnetError: the compiled library is missing, or refuses the shapes.
    """
    batch, channels, height, width = x.shape
    out_channels, group_channels = weight.shape[:2]
    geometry = _geometry(x, weight, stride, padding, dilation, groups)
    out_size = geometry.output_size(height, width)
    library, isa = _library_and_isa()
    threads = torch.get_num_threads()
    # One thread works through a few images at a time, which stay near it between the operations.
    largest = max(channels * height * width, out_channels * math.prod(out_size), 1)
    images = batch if threads > 1 else max(_CHUNK_VALUES // largest, 1)
    weight_bits = _packed(weight, weight.new_zeros(group_channels), 1)
    scale, bias = weight[:, 0, 0, 0].abs().contiguous(), weight.new_zeros(out_channels)
    y = x.new_empty(batch, *out_size, out_channels, dtype=dtype)
    scratch = y if dtype is torch.float32 else torch.empty(min(images, batch), *out_size, out_channels)
    for begin in range(0, batch, images):
        part = x[begin : begin + images]
        bits = _packed(part, threshold, threads)
        sums = y[begin : begin + images] if scratch is y else scratch[: len(part)]
        shape = geometry.c_shape(len(part), height, width, out_channels)
        status = library.dirnet_binary_conv2d(
            *(isa, bits.data_ptr(), weight_bits.data_ptr(), shape),
            *(scale.data_ptr(), bias.data_ptr(), None, None, -torch.inf, torch.inf),
            *(None, sums.data_ptr(), None, threads),
        )
        checked_status(status)
        if scratch is not y:
            y[begin : begin + images] = sums
    return y.permute(0, 3, 1, 2)


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
    return x.new_empty(x.shape[0], *size, weight.shape[0], dtype=dtype).permute(0, 3, 1, 2)


@functools.cache
def _library_and_isa() -> tuple[ctypes.CDLL, int]:
    # Found once: a training asks some thousand times a second.
    return c_interface(), isa_numbers()[chosen_isa()]


def _packed(values: Tensor, threshold: Tensor, threads: int) -> Tensor:
    """Return the bits (N, H, W, words) of ``values`` (N, C, H, W) >= ``threshold`` (C,), 64 to a word."""
    last = values.permute(0, 2, 3, 1).to(torch.float32).contiguous()
    channels = last.shape[-1]
    bits = torch.empty(*last.shape[:-1], -(-channels // 64), dtype=torch.int64)
    pixels = last.numel() // channels
    library, isa = _library_and_isa()
    status = library.dirnet_binarize(
        *(isa, last.data_ptr(), pixels, channels, threshold.contiguous().data_ptr(), bits.data_ptr(), threads)
    )
    checked_status(status)
    return bits


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
