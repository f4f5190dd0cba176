"""What each operator means in standard ONNX operators, so that any ONNX Runtime can run an exported file.

The integer part goes through ConvInteger and MatMulInteger on unsigned bytes 0 and 2 with zero point 1, which
stand for -1 and +1: a dot product is an exact integer, ConvInteger pads with the zero point, which is the
true zero that the network was trained with, and no graph optimisation folds the scale into integer weights
(which would round differently).
"""

from __future__ import annotations

import enum

import numpy as np
import onnx

from dirnet_convert.onnx_export.operators.builder import BodyBuilder

_WINDOW = ("kernel_shape", "strides", "pads", "dilations")


class Residual(enum.Enum):
    """Whether a residual is added before the activation."""

    NONE = "none"
    ADDED = "added"


class Stem(enum.Enum):
    """What a stem multiplies: floats, or bytes that it makes of them."""

    FLOAT = "float"
    INT8 = "int8"


class StemActivation(enum.Enum):
    """What a stem's sums go through before they are pooled."""

    CLIP = "clip"
    PRELU = "clip and PReLU"


class Output(enum.Enum):
    """What leaves a convolution: floats, bits, or both."""

    FLOAT = "float"
    BITS = "bits"
    BOTH = "both"


def _words(b: BodyBuilder, channels: str) -> str:
    return b.add("Div", b.add("Add", channels, b.int64([63])), b.int64([64]))


def _zeros_and_ones(b: BodyBuilder) -> str:
    """Return the eight bits (256, 8) of each byte, the lowest first.

    Computed when the model is loaded: the table itself would be the largest part of a small network's bodies.
    """
    values = b.constant(np.arange(256, dtype=np.uint8)[:, None])
    places = b.constant(np.arange(8, dtype=np.uint8))
    return b.add(
        "BitwiseAnd", b.add("BitShift", values, places, direction="RIGHT"), b.constant(np.array(1, np.uint8))
    )


def _zeros_and_twos(b: BodyBuilder) -> str:
    """Return -1 and +1 (256, 8) as bytes with zero point 1, for each bit of each byte."""
    return b.add("BitShift", _zeros_and_ones(b), b.constant(np.array(1, np.uint8)), direction="LEFT")


def _unpack(b: BodyBuilder, words: str, channels: str, rank: int | None, table: str) -> str:
    """Unpack words (..., Cw) to bytes (..., C).

    A word is eight bytes, and a table of 256 rows turns a byte into what its eight bits stand for: one copy
    of 8 bytes for each 8 channels instead of five passes over 8 bytes for each channel.
    """
    shifts = b.constant(np.arange(0, 64, 8, dtype=np.uint64))
    spread = b.add("BitShift", b.add("Unsqueeze", words, b.int64([-1])), shifts, direction="RIGHT")
    octets = b.add("BitwiseAnd", spread, b.constant(np.array(255, np.uint64)))
    bits = b.add("Gather", table, b.add("Cast", octets, to=onnx.TensorProto.INT32), axis=0)
    padded = b.add("Mul", _words(b, channels), b.int64([64]))
    # In a shape for Reshape a 0 copies the axis from the input, which also serves an empty batch.
    leading = b.add("Shape", words, start=0, end=-1) if rank is None else b.int64([0] * (rank - 1))
    shape = b.add("Concat", leading, padded, axis=0)
    flat = b.add("Reshape", bits, shape, allowzero=1) if rank is None else b.add("Reshape", bits, shape)
    return b.add("Slice", flat, b.int64([0]), channels, b.int64([-1]))


def _pack(b: BodyBuilder, mask: str, channels: str, output: str) -> None:
    """Pack booleans (..., C) into words (..., Cw).

    A matrix product with powers of two gathers 16 bits into a number below 2^16, exact in float32; four of
    them make a word by shift and or. (A sum of 64-bit numbers would not do: ONNX Runtime's ReduceSum of int64
    loses the low bits above 2^53.)
    """
    words = _words(b, channels)
    shape = b.add("Concat", b.add("Shape", mask, start=0, end=-1), words, axis=0)
    rows = b.add("Reshape", mask, b.add("Concat", b.int64([-1]), channels, axis=0))
    flat = b.add("Cast", rows, to=onnx.TensorProto.FLOAT)
    spare = b.add("Sub", b.add("Mul", words, b.int64([64])), channels)
    padded = b.add("Pad", flat, b.add("Concat", b.int64([0, 0, 0]), spare, axis=0))
    powers = np.zeros((64, 4), np.float32)
    powers[np.arange(64), np.arange(64) // 16] = 2.0 ** (np.arange(64) % 16)
    quarters = b.add("MatMul", b.add("Reshape", padded, b.int64([-1, 64])), b.constant(powers))
    # (words, 4) floats to one uint64 a word: shifted into place, then or-ed in two steps.
    integers = b.add("Cast", quarters, to=onnx.TensorProto.UINT64)
    shifts = b.constant(np.arange(0, 64, 16, dtype=np.uint64))
    placed = b.add("BitShift", integers, shifts, direction="LEFT")
    low, high = b.add_many("Split", 2, placed, axis=1, num_outputs=2)
    halves = b.add("BitwiseOr", low, high)
    even, odd = b.add_many("Split", 2, halves, axis=1, num_outputs=2)
    b.add("Reshape", b.add("BitwiseOr", even, odd), shape, allowzero=1, output=output)


def _dot(b: BodyBuilder) -> str:
    """Return the dot products as floats (N, Ho, Wo, O)."""
    channels = b.attribute_int("channels")
    group_channels = b.add("Div", channels, b.attribute_int("group"))
    one = b.constant(np.array(1, np.uint8))
    signs = _zeros_and_twos(b)
    x = b.add("Transpose", _unpack(b, "B", channels, 4, signs), perm=[0, 3, 1, 2])
    w = b.add("Transpose", _unpack(b, "W", group_channels, 4, signs), perm=[0, 3, 1, 2])
    dot = b.add("ConvInteger", x, w, one, one, references=(*_WINDOW, "group"))
    return b.add("Cast", b.add("Transpose", dot, perm=[0, 2, 3, 1]), to=onnx.TensorProto.FLOAT)


def _prelu(b: BodyBuilder, v: str, slope: str, output: str | None = None) -> str:
    # For a finite slope, max(v, 0) + slope * min(v, 0) has one term of zero, so nothing rounds: it is PReLU,
    # several times faster than ONNX Runtime's PRelu or Where. None of these operators keeps a zero's sign.
    zero = b.constant(np.array(0, np.float32))
    below = b.add("Mul", b.add("Min", v, zero), slope)
    return b.add("Add", b.add("Max", v, zero), below, output=output)


def _activation(b: BodyBuilder, v: str, output: str | None) -> str:
    # Max and Min pass a NaN on in every ONNX Runtime build; Clip leaves that to the processor.
    v = b.add("Max", v, b.attribute_float("clip_min"))
    v = b.add("Min", v, b.attribute_float("clip_max"))
    return _prelu(b, v, "slope", output)


def binarize() -> list[onnx.NodeProto]:
    """Return the body of Binarize."""
    b = BodyBuilder()
    _pack(b, b.add("GreaterOrEqual", "X", "threshold"), b.attribute_int("channels"), "B")
    return b.nodes


def binary_conv2d() -> list[onnx.NodeProto]:
    """Return the body of BinaryConv2d."""
    b = BodyBuilder()
    b.add("Add", b.add("Mul", _dot(b), "scale"), "bias", output="Y")
    return b.nodes


def conv_act(residual: Residual, output: Output) -> list[onnx.NodeProto]:
    """Return the body of a convolution with activation."""
    b = BodyBuilder()
    v = b.add("Add", b.add("Mul", _dot(b), "scale"), "bias")
    if residual is Residual.ADDED:
        v = b.add("Add", v, "residual")
    y = _activation(b, v, None if output is Output.BITS else "Y")
    if output is not Output.FLOAT:
        mask = b.add("GreaterOrEqual", y, "threshold")
        # W (O, kh, kw, Cgw): the number of output channels is the length of its first axis.
        _pack(b, mask, b.add("Shape", "W", start=0, end=1), "Bo")
    return b.nodes


def _pool_padding(b: BodyBuilder) -> str:
    """Return the padding (8) of an image (N, H, W, C) with which a plain MaxPool gives the wanted size.

    Computed here, since ONNX's shape inference and ONNX Runtime disagree on the size with ceil_mode:
      length = ceil or floor of (size + before + after - window) / stride, + 1
      one less with ceil_mode where the last window would begin in the padding after the image
      after  = what the last window needs beyond the image, if anything
    """
    one = b.int64([1])
    size = b.add("Shape", "B", start=1, end=3)
    kernel, stride, dilation = (b.attribute_ints(name) for name in ("kernel_shape", "strides", "dilations"))
    before, after = b.add_many("Split", 2, b.attribute_ints("pads"), axis=0, num_outputs=2)
    ceil_mode = b.attribute_int("ceil_mode")
    window = b.add("Add", b.add("Mul", b.add("Sub", kernel, one), dilation), one)
    begun = b.add("Add", size, before)
    span = b.add("Sub", b.add("Add", begun, after), window)
    rounded = b.add("Add", span, b.add("Mul", ceil_mode, b.add("Sub", stride, one)))
    steps = b.add("Div", rounded, stride)
    late = b.add(
        "Cast", b.add("GreaterOrEqual", b.add("Mul", steps, stride), begun), to=onnx.TensorProto.INT64
    )
    steps = b.add("Sub", steps, b.add("Mul", ceil_mode, late))
    reach = b.add("Add", b.add("Mul", steps, stride), window)
    needed = b.add("Max", b.add("Sub", reach, begun), b.int64([0]))
    return b.add("Concat", b.int64([0]), before, b.int64([0, 0]), needed, b.int64([0]), axis=0)


def binary_max_pool2d() -> list[onnx.NodeProto]:
    """Return the body of BinaryMaxPool2d."""
    b = BodyBuilder()
    channels = b.attribute_int("channels")
    # Zero bits around the image change no OR.
    padded = b.add("Pad", _unpack(b, "B", channels, 4, _zeros_and_ones(b)), _pool_padding(b))
    image = b.add("Transpose", padded, perm=[0, 3, 1, 2])
    pooled = b.add("MaxPool", image, references=("kernel_shape", "strides", "dilations"))
    mask = b.add("Cast", b.add("Transpose", pooled, perm=[0, 2, 3, 1]), to=onnx.TensorProto.BOOL)
    _pack(b, mask, channels, "Bo")
    return b.nodes


def _int8_convolution(b: BodyBuilder) -> str:
    """Return the convolution of bytes, scaled, with its bias (N, O, Ho, Wo).

    What lies below the range, and what is no number, is given the smallest value of the range before it is
    rounded: processors differ on rounding NaN.
    """
    scale = b.attribute_float("input_scale")
    zero = b.attribute_int("input_zero_point")
    zero_point = b.add("Squeeze", b.add("Cast", zero, to=onnx.TensorProto.UINT8))
    lowest = b.add("Neg", b.add("Mul", b.add("Cast", zero, to=onnx.TensorProto.FLOAT), scale))
    image = b.add("Where", b.add("GreaterOrEqual", "X", lowest), "X", lowest)
    q = b.add("QuantizeLinear", image, scale, zero_point)
    sums = b.add("ConvInteger", q, "W", zero_point, references=("kernel_shape", "strides", "pads"))
    per_channel = b.int64([-1, 1, 1])
    scaled = b.add(
        "Mul", b.add("Cast", sums, to=onnx.TensorProto.FLOAT), b.add("Reshape", "scale", per_channel)
    )
    return b.add("Add", scaled, b.add("Reshape", "bias", per_channel))


def stem_conv2d(stem: Stem, activation: StemActivation, output: Output) -> list[onnx.NodeProto]:
    """Return the body of a stem."""
    b = BodyBuilder()
    if stem is Stem.INT8:
        v = _int8_convolution(b)
    else:
        v = b.add("Conv", "X", "W", "bias", references=("kernel_shape", "strides", "pads"))
    v = b.add("Clip", v, b.attribute_float("clip_min"), b.attribute_float("clip_max"))
    if activation is StemActivation.PRELU:
        v = _prelu(b, v, b.add("Reshape", "slope", b.int64([-1, 1, 1])))
    v = b.add("MaxPool", v, references=("kernel_shape", "strides", "pads"), prefix="pool_")
    y = b.add("Transpose", v, perm=[0, 2, 3, 1], output=None if output is Output.BITS else "Y")
    if output is not Output.FLOAT:
        _pack(b, b.add("GreaterOrEqual", y, "threshold"), b.add("Shape", "W", start=0, end=1), "Bo")
    return b.nodes


def binary_gemm() -> list[onnx.NodeProto]:
    """Return the body of BinaryGemm."""
    b = BodyBuilder()
    channels = b.attribute_int("channels")
    one = b.constant(np.array(1, np.uint8))
    signs = _zeros_and_twos(b)
    x = _unpack(b, "B", channels, None, signs)
    w = b.add("Transpose", _unpack(b, "W", channels, 2, signs), perm=[1, 0])
    dot = b.add("Cast", b.add("MatMulInteger", x, w, one, one), to=onnx.TensorProto.FLOAT)
    b.add("Add", b.add("Mul", dot, "scale"), "bias", output="Y")
    return b.nodes
