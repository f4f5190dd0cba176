"""Float pooling in NHWC: ONNX Runtime has none, but a window's rows and columns are strided slices.

The maximum or the sum of a window is taken over its rows and then over its columns, a slice for each, so that
a k x k window takes 2k slices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from dirnet_convert.onnx_export.ir_tools import dims, integer, ints, new_value
from dirnet_convert.onnx_export.passes.layout_rule import Rewriter, Rule


@dataclass(frozen=True)
class _Window:
    """Pooling along one axis: ``size`` pixels in, ``output`` out."""

    size: int
    output: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def reach(self) -> int:
        """Pixels to add behind so that the last window is inside, 0 or more."""
        last = (self.output - 1) * self.stride + self.dilation * (self.kernel - 1) + 1
        return max(0, last - self.size - self.before)

    def taps(self, counts_padding: bool) -> np.ndarray:
        """Return how many taps of each window count: those on pixels, and on the padding if that counts."""
        first, end = (-self.before, self.size + self.after) if counts_padding else (0, self.size)
        starts = np.arange(self.output) * self.stride - self.before
        positions = starts[:, None] + np.arange(self.kernel) * self.dilation
        return ((positions >= first) & (positions < end)).sum(axis=1)


def pooling_rule(node: ir.Node) -> Rule | None:
    """Return MaxPool or AveragePool over two axes as slices; None where the sizes are unknown."""
    windows = _windows(node)
    if windows is None:
        return None
    x, y = node.inputs[0], node.outputs[0]

    def emit(to: Rewriter) -> None:
        value = _padded(to, node, to.nhwc(x), windows)
        combine = "Max" if node.op_type == "MaxPool" else "Sum"
        output = to.output(y)
        pooled = None
        for axis, window in ((1, windows[0]), (2, windows[1])):
            slices = [_slice(to, node, value, axis, window, tap) for tap in range(window.kernel)]
            last = axis == 2 and node.op_type == "MaxPool"
            pooled = output if last else new_value(value, f"{y.name}_{axis}", slices[0].shape)
            to.insert(combine, slices, {}, [pooled])
            value = pooled
        if node.op_type == "AveragePool":
            to.insert("Mul", [pooled, to.constant(f"{node.name}/share", _share(node, windows))], {}, [output])

    _, channels, height, width = dims(y)
    # Each slice moves a pooled tensor once; a transpose costs about as much as two such moves.
    cost = sum(window.kernel for window in windows) * channels * height * width // 4
    return Rule((x,), (y,), emit, cost)


def _windows(node: ir.Node) -> tuple[_Window, _Window] | None:
    shapes = dims(node.inputs[0]), dims(node.outputs[0])
    kernel = ints(node, "kernel_shape", ())
    if len(kernel) != 2 or any(
        s is None or len(s) != 4 or not all(isinstance(d, int) for d in s[1:]) for s in shapes
    ):
        return None
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    if len(node.outputs) > 1 and node.outputs[1].uses():
        return None
    strides, dilations = ints(node, "strides", (1, 1)), ints(node, "dilations", (1, 1))
    pads = ints(node, "pads", (0, 0, 0, 0))
    return tuple(
        _Window(shapes[0][i + 2], shapes[1][i + 2], kernel[i], strides[i], dilations[i], pads[i], pads[i + 2])
        for i in (0, 1)
    )


def _padded(to: Rewriter, node: ir.Node, value: ir.Value, windows: tuple[_Window, _Window]) -> ir.Value:
    before, after = [w.before for w in windows], [w.reach for w in windows]
    if not any(before + after):
        return value
    fill = -math.inf if node.op_type == "MaxPool" else 0.0
    sizes = [w.size + b + a for w, b, a in zip(windows, before, after, strict=True)]
    shape = ir.Shape([value.shape[0], *sizes, value.shape[3]])
    padded = new_value(value, f"{value.name}_padded", shape)
    pads = np.array([0, *before, 0, 0, *after, 0], np.int64)
    inputs = [
        to.constant(f"{node.name}/pads", pads),
        to.constant(f"{node.name}/fill", np.array(fill, np.float32)),
    ]
    to.insert("Pad", [value, *inputs], {"mode": "constant"}, [padded])
    return padded


def _slice(to: Rewriter, node: ir.Node, value: ir.Value, axis: int, window: _Window, tap: int) -> ir.Value:
    start = tap * window.dilation
    end = start + (window.output - 1) * window.stride + 1
    shape = list(value.shape)
    shape[axis] = window.output
    piece = new_value(value, f"{node.outputs[0].name}_{axis}_{tap}", ir.Shape(shape))
    numbers = {"starts": start, "ends": end, "axes": axis, "steps": window.stride}
    inputs = [to.constant(f"{node.name}/{name}", np.array([n], np.int64)) for name, n in numbers.items()]
    to.insert("Slice", [value, *inputs], {}, [piece])
    return piece


def _share(node: ir.Node, windows: tuple[_Window, _Window]) -> np.ndarray:
    """Return 1 / (taps that count) of each window, as (1, Ho, Wo, 1), or one number where all are equal."""
    counts_padding = bool(integer(node, "count_include_pad", 0))
    rows, columns = (window.taps(counts_padding) for window in windows)
    share = (1.0 / np.outer(rows, columns)).astype(np.float32)[None, :, :, None]
    return share.reshape(-1)[:1] if np.all(share == share.flat[0]) else share
