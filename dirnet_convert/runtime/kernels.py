"""The kernels by themselves, on numpy arrays, with a chosen instruction set: for tests and measurements."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dirnet_convert.errors import DirnetError
from dirnet_convert.runtime.isa import Isa, chosen_isa, isa_numbers
from dirnet_convert.runtime.library import c_interface

_FAILURES = {
    1: "this instruction set is not available",
    2: "an argument or a shape is impossible",
    3: "out of memory",
}


@dataclass(frozen=True)
class ConvGeometry:
    """The attributes of a binary convolution; pads are (top, left, bottom, right)."""

    channels: int
    kernel_shape: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    group: int = 1

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width that come out."""
        top, left, bottom, right = self.pads
        spans = (height + top + bottom, width + left + right)
        return tuple(
            (span - dilation * (kernel - 1) - 1) // stride + 1
            for span, kernel, stride, dilation in zip(
                spans, self.kernel_shape, self.strides, self.dilations, strict=True
            )
        )

    def c_shape(self, batch: int, height: int, width: int, out_channels: int) -> ctypes.Array[ctypes.c_int64]:
        """Return the whole shape as the C interface takes it."""
        return _lengths(
            (
                *(batch, height, width, self.channels, out_channels),
                *(*self.kernel_shape, *self.strides, *self.pads, *self.dilations, self.group),
            )
        )


@dataclass(frozen=True)
class Activation:
    """What follows scale and bias; None leaves a step out. ``slope`` (O), ``residual`` (N, Ho, Wo, O)."""

    slope: np.ndarray | None = None
    residual: np.ndarray | None = None
    clip_min: float = -np.inf
    clip_max: float = np.inf


def binarize(x: np.ndarray, threshold: np.ndarray, *, isa: Isa | None = None, threads: int = 1) -> np.ndarray:
    """Return the bits (..., ceil(C/64)) of ``x`` (..., C) >= ``threshold`` (C).

    Raises:
        DirnetError: the instruction set is not available, or the shapes do not fit.
    """
    channels = x.shape[-1]
    x, threshold = _floats(x), _floats(threshold, (channels,))
    bits = np.zeros((*x.shape[:-1], -(-channels // 64)), np.uint64)
    pixels = x.size // channels
    checked_status(
        c_interface().dirnet_binarize(
            _number(isa), _address(x), pixels, channels, _address(threshold), _address(bits), threads
        )
    )
    return bits


def binary_conv2d(
    bits: np.ndarray,
    weights: np.ndarray,
    geometry: ConvGeometry,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    activation: Activation | None = None,
    threshold: np.ndarray | None = None,
    want_float: bool = True,
    isa: Isa | None = None,
    threads: int = 1,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return floats (N, Ho, Wo, O) where wanted, and bits (N, Ho, Wo, ceil(O/64)) where a threshold is given.

    ``bits`` (N, H, W, ceil(C/64)) and ``weights`` (O, kh, kw, ceil(C/group/64)) are packed.

    Raises:
        DirnetError: the instruction set is not available, or the shapes do not fit.
    """
    batch, height, width = bits.shape[:3]
    out_channels = weights.shape[0]
    out_height, out_width = geometry.output_size(height, width)
    bits = _words(bits, (batch, height, width, -(-geometry.channels // 64)))
    weight_words = -(-(geometry.channels // geometry.group) // 64)
    weights = _words(weights, (out_channels, *geometry.kernel_shape, weight_words))
    activation = activation or Activation()
    out_shape = (batch, out_height, out_width, out_channels)
    vector = (out_channels,)
    scale, bias = _floats(scale, vector), _floats(bias, vector)
    slope = None if activation.slope is None else _floats(activation.slope, vector)
    residual = None if activation.residual is None else _floats(activation.residual, out_shape)
    threshold = None if threshold is None else _floats(threshold, vector)
    y = np.zeros(out_shape, np.float32) if want_float else None
    packed = None if threshold is None else np.zeros((*out_shape[:3], -(-out_channels // 64)), np.uint64)
    checked_status(
        c_interface().dirnet_binary_conv2d(
            _number(isa),
            _address(bits),
            _address(weights),
            geometry.c_shape(batch, height, width, out_channels),
            *(_address(item) for item in (scale, bias, slope, residual)),
            activation.clip_min,
            activation.clip_max,
            *(_address(item) for item in (threshold, y, packed)),
            threads,
        )
    )
    return y, packed


def binary_max_pool2d(
    bits: np.ndarray,
    channels: int,
    *,
    kernel_shape: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int],
    dilations: tuple[int, int],
    output_size: tuple[int, int],
    threads: int = 1,
) -> np.ndarray:
    """Return the OR of each window, (N, Ho, Wo, ceil(C/64)); pads are (top, left).

    Raises:
        DirnetError: the shapes do not fit.
    """
    batch, height, width = bits.shape[:3]
    bits = _words(bits, (batch, height, width, -(-channels // 64)))
    out = np.zeros((batch, *output_size, bits.shape[-1]), np.uint64)
    shape = (batch, height, width, channels, *kernel_shape, *strides, *pads, *dilations, *output_size)
    checked_status(
        c_interface().dirnet_binary_max_pool2d(_address(bits), _lengths(shape), _address(out), threads)
    )
    return out


def _floats(array: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    return _contiguous(array, np.dtype(np.float32), array.shape if shape is None else shape)


def _words(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return _contiguous(array, np.dtype(np.uint64), shape)


def _contiguous(array: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if array.dtype != dtype or array.shape != shape:
        raise DirnetError(f"Expected {dtype} of shape {shape}, got {array.dtype} of shape {array.shape}.")
    return np.ascontiguousarray(array)


def _address(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data


def _lengths(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


def _number(isa: Isa | None) -> int:
    numbers = isa_numbers()
    wanted = chosen_isa() if isa is None else Isa(isa)
    if wanted not in numbers:
        raise DirnetError(f"ISA '{wanted}' is not available here; choose from {', '.join(numbers)}.")
    return numbers[wanted]


def checked_status(status: int) -> None:
    """Raise DirnetError where a call of the C interface did not return DIRNET_OK."""
    if status != 0:
        raise DirnetError(f"The kernel refused the call: {_FAILURES.get(status, f'status {status}')}.")
