"""What each operator means, in plain numpy; every other route is compared with it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dirnet_convert.onnx_export.operators.bits import pack_bits, unpack_bits
from dirnet_convert.onnx_export.operators.spec import AttributeValue

Inputs = Mapping[str, np.ndarray]
Attributes = Mapping[str, AttributeValue]


def binarize(inputs: Inputs, attributes: Attributes) -> tuple[np.ndarray, ...]:
    """B = 1 where X >= threshold, per channel; X (..., C), B (..., ceil(C/64))."""
    return (pack_bits(inputs["X"] >= inputs["threshold"]),)


def convolution_dot(inputs: Inputs, attributes: Attributes) -> np.ndarray:
    """Return the integer dot products (N, Ho, Wo, O) of the binary convolution.

    A padded tap is a true zero: it adds nothing, so a dot product at the border has fewer taps.
    """
    channels, group = attributes["channels"], attributes["group"]
    kernel_h, kernel_w = attributes["kernel_shape"]
    stride_h, stride_w = attributes["strides"]
    top, left, bottom, right = attributes["pads"]
    dilation_h, dilation_w = attributes["dilations"]
    x = unpack_bits(inputs["B"], channels).astype(np.int64)
    w = unpack_bits(inputs["W"], channels // group).astype(np.int64)
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    batch, height, width, _ = padded.shape
    out_h = (height - dilation_h * (kernel_h - 1) - 1) // stride_h + 1
    out_w = (width - dilation_w * (kernel_w - 1) - 1) // stride_w + 1
    out_channels = w.shape[0]
    group_in, group_out = channels // group, out_channels // group
    dot = np.zeros((batch, out_h, out_w, out_channels), np.int64)
    for g in range(group):
        into = slice(g * group_out, (g + 1) * group_out)
        for ky in range(kernel_h):
            for kx in range(kernel_w):
                rows = slice(ky * dilation_h, ky * dilation_h + (out_h - 1) * stride_h + 1, stride_h)
                columns = slice(kx * dilation_w, kx * dilation_w + (out_w - 1) * stride_w + 1, stride_w)
                taps = padded[:, rows, columns, g * group_in : (g + 1) * group_in]
                dot[..., into] += taps @ w[into, ky, kx].T
    return dot


def _scaled(dot: np.ndarray, inputs: Inputs) -> np.ndarray:
    return dot.astype(np.float32) * inputs["scale"] + inputs["bias"]


def binary_conv2d(inputs: Inputs, attributes: Attributes) -> tuple[np.ndarray, ...]:
    """Y = dot * scale + bias, per output channel."""
    with np.errstate(all="ignore"):
        return (_scaled(convolution_dot(inputs, attributes), inputs),)


def _activated(inputs: Inputs, attributes: Attributes) -> np.ndarray:
    # v < low ? low : v and not max(v, low): a NaN is never below a bound, so it passes.
    low, high = np.float32(attributes["clip_min"]), np.float32(attributes["clip_max"])
    with np.errstate(all="ignore"):
        v = _scaled(convolution_dot(inputs, attributes), inputs)
        if "residual" in inputs:
            v = v + inputs["residual"]
        v = np.where(v < low, low, v)
        v = np.where(v > high, high, v)
        return np.where(v < 0, inputs["slope"] * v, v)


def conv_act(inputs: Inputs, attributes: Attributes) -> tuple[np.ndarray, ...]:
    """Y = activation(dot * scale + bias [+ residual])."""
    return (_activated(inputs, attributes),)


def conv_act_to_bits(inputs: Inputs, attributes: Attributes) -> tuple[np.ndarray, ...]:
    """Bo = the bits of activation(dot * scale + bias [+ residual]) >= threshold."""
    return (pack_bits(_activated(inputs, attributes) >= inputs["threshold"]),)


def conv_act_with_bits(inputs: Inputs, attributes: Attributes) -> tuple[np.ndarray, ...]:
    """Both: Y as floats and Bo as bits."""
    y = _activated(inputs, attributes)
    return y, pack_bits(y >= inputs["threshold"])


def _pooled_length(size: int, before: int, after: int, window: int, stride: int, ceil_mode: int) -> int:
    # As in PyTorch: with ceil_mode, a last window that would begin in the padding after the input is dropped.
    span = size + before + after - window
    length = (-(-span // stride) if ceil_mode else span // stride) + 1
    return length - 1 if ceil_mode and (length - 1) * stride >= size + before else length


def binary_max_pool2d(inputs: Inputs, attributes: Attributes) -> tuple[np.ndarray, ...]:
    """Bo = the OR of the bits of each window; a padded tap is left out, and a window of padding gives 0."""
    kernel_h, kernel_w = attributes["kernel_shape"]
    stride_h, stride_w = attributes["strides"]
    top, left, bottom, right = attributes["pads"]
    dilation_h, dilation_w = attributes["dilations"]
    words = inputs["B"]
    batch, height, width, word_total = words.shape
    window_h, window_w = dilation_h * (kernel_h - 1) + 1, dilation_w * (kernel_w - 1) + 1
    ceil_mode = attributes["ceil_mode"]
    out_h = _pooled_length(height, top, bottom, window_h, stride_h, ceil_mode)
    out_w = _pooled_length(width, left, right, window_w, stride_w, ceil_mode)
    out = np.zeros((batch, out_h, out_w, word_total), np.uint64)
    for oy in range(out_h):
        for ox in range(out_w):
            for ky in range(kernel_h):
                for kx in range(kernel_w):
                    y = oy * stride_h - top + ky * dilation_h
                    x = ox * stride_w - left + kx * dilation_w
                    if 0 <= y < height and 0 <= x < width:
                        out[:, oy, ox] |= words[:, y, x]
    return (out,)


def _image(inputs: Inputs, attributes: Attributes) -> np.ndarray:
    """Return what a stem multiplies (N, C, H, W) as float64: the image, or the bytes q - zero_point of it."""
    x = inputs["X"]
    if "input_scale" not in attributes:
        return x.astype(np.float64)
    zero_point = attributes["input_zero_point"]
    with np.errstate(all="ignore"):
        ratio = x / np.float32(attributes["input_scale"])
    return np.clip(np.rint(np.where(np.isnan(ratio), -np.inf, ratio)), -zero_point, 255 - zero_point).astype(
        np.float64
    )


def _stem(inputs: Inputs, attributes: Attributes) -> np.ndarray:
    """Return the pooled convolution (N, Ho, Wo, O), summed in float64: exact for bytes, and comparable with
    any order of summation for floats."""
    kernel_h, kernel_w = attributes["kernel_shape"]
    top, left, bottom, right = attributes["pads"]
    x = np.pad(_image(inputs, attributes), ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel_h, kernel_w), (2, 3))
    stride_h, stride_w = attributes["strides"]
    weight = inputs["W"].astype(np.float64)
    sums = np.einsum("nchwij,ocij->nhwo", windows[:, :, ::stride_h, ::stride_w], weight)
    with np.errstate(all="ignore"):
        v = sums.astype(np.float32) * inputs.get("scale", np.float32(1)) + inputs["bias"]
    low, high = np.float32(attributes["clip_min"]), np.float32(attributes["clip_max"])
    v = np.where(v < low, low, v)
    v = np.where(v > high, high, v)
    if "slope" in inputs:
        with np.errstate(all="ignore"):
            v = np.where(v < 0, inputs["slope"] * v, v)
    top, left, bottom, right = attributes["pool_pads"]
    padded = np.pad(v, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, attributes["pool_kernel_shape"], (1, 2))
    stride_h, stride_w = attributes["pool_strides"]
    return np.fmax.reduce(windows[:, ::stride_h, ::stride_w], (-2, -1), initial=-np.inf).astype(np.float32)


def stem_conv2d(inputs: Inputs, attributes: Attributes) -> tuple[np.ndarray, ...]:
    """Y = max pooling of [PReLU of] clip(convolution + bias); padded places and NaN are left out."""
    return (_stem(inputs, attributes),)


def stem_conv2d_to_bits(inputs: Inputs, attributes: Attributes) -> tuple[np.ndarray, ...]:
    """Bo = the bits of the pooled value >= threshold."""
    return (pack_bits(_stem(inputs, attributes) >= inputs["threshold"]),)


def stem_conv2d_with_bits(inputs: Inputs, attributes: Attributes) -> tuple[np.ndarray, ...]:
    """Both: Y as floats and Bo as bits."""
    y = _stem(inputs, attributes)
    return y, pack_bits(y >= inputs["threshold"])


def binary_gemm(inputs: Inputs, attributes: Attributes) -> tuple[np.ndarray, ...]:
    """Y = (x . w) * scale + bias for B (..., Cw) and W (O, Cw)."""
    x = unpack_bits(inputs["B"], attributes["channels"]).astype(np.int64)
    w = unpack_bits(inputs["W"], attributes["channels"]).astype(np.int64)
    with np.errstate(all="ignore"):
        return (_scaled(x @ w.T, inputs),)
