"""Which operators move to NHWC, where the transposes that stay stand, and the cut that decides it."""

from __future__ import annotations

import numpy as np
import pytest
from pass_graphs import CHANNELS, GraphBuilder, rewritten

from dirnet_convert.onnx_export import passes
from dirnet_convert.onnx_export.passes.min_cut import INFINITE, CutGraph


def elementwise(g: GraphBuilder, x: str) -> str:
    y = g.add("HardSwish", g.add("Sigmoid", x))
    y = g.add("PRelu", y, g.vector(shape=(CHANNELS, 1, 1)))
    return g.add("Clip", y, g.constant(np.float32(-1)), g.constant(np.float32(1)))


def scaled(g: GraphBuilder, x: str) -> str:
    return g.add("Mul", x, g.vector(shape=(1, CHANNELS, 1, 1)))


def by_position(g: GraphBuilder, x: str) -> str:
    return g.add("Add", x, g.vector(shape=(6, 4)))


def sliced(g: GraphBuilder, x: str) -> str:
    bounds = [g.constant(np.array(v, np.int64)) for v in ([1, 0], [6, 4], [2, 3], [2, 1])]
    return g.add("Slice", x, *bounds)


def padded(g: GraphBuilder, x: str) -> str:
    return g.add("Pad", x, g.constant(np.array([0, 2, 0, 1, 0, 3, 1, 0], np.int64)))


def padded_by_axes(g: GraphBuilder, x: str) -> str:
    pads, axes = (g.constant(np.array(v, np.int64)) for v in ([1, 2], [1]))
    return g.add("Pad", x, pads, g.constant(np.float32(3)), axes)


def concatenated(g: GraphBuilder, x: str) -> str:
    return g.add("Concat", x, g.add("Relu", x), axis=1)


def split(g: GraphBuilder, x: str) -> str:
    first = g.add("Split", x, outputs=2, axis=1, num_outputs=2)
    return g.add("Mul", first, f"{first}_1")


def pointwise(g: GraphBuilder, x: str) -> str:
    return g.add("Conv", x, g.vector(shape=(5, CHANNELS, 1, 1)), g.vector(shape=(5,)), strides=[2, 1])


def normalized(g: GraphBuilder, x: str) -> str:
    return g.batch_norm(g.add("Relu", x))


def max_pooled(g: GraphBuilder, x: str) -> str:
    return g.add("MaxPool", x, kernel_shape=[2, 3], strides=[2, 1], pads=[0, 1, 0, 1])


def averaged(g: GraphBuilder, x: str) -> str:
    return g.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])


def averaged_without_padding(g: GraphBuilder, x: str) -> str:
    return g.add(
        "AveragePool", x, kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=0
    )


def averaged_with_padding(g: GraphBuilder, x: str) -> str:
    return g.add(
        "AveragePool", x, kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1
    )


@pytest.mark.parametrize(
    "layers",
    [
        elementwise,
        scaled,
        by_position,
        sliced,
        padded,
        padded_by_axes,
        concatenated,
        split,
        pointwise,
        normalized,
        max_pooled,
        averaged,
        averaged_without_padding,
        averaged_with_padding,
    ],
)
def test_float_operators_move_to_nhwc(layers) -> None:
    g = GraphBuilder()
    y = layers(g, g.binary_conv("x"))
    kinds = rewritten(g.model(g.add("GlobalAveragePool", y)), passes.choose_layout)
    # One to enter, and one of a single pixel, since the graph's output is NCHW.
    assert kinds["Transpose"] == 2
    assert kinds["GlobalAveragePool"] == kinds["MaxPool"] == kinds["AveragePool"] == kinds["Conv"] == 0


@pytest.mark.parametrize("op_type", ["ReduceMean", "GlobalAveragePool"])
@pytest.mark.parametrize("flatten", ["Flatten", "Reshape", "Squeeze"])
def test_nothing_is_transposed_behind_global_pooling(op_type: str, flatten: str) -> None:
    g = GraphBuilder()
    y = g.binary_conv("x")
    if op_type == "ReduceMean":
        y = g.add("ReduceMean", y, g.constant(np.array([-1, -2], np.int64)), keepdims=1)
    else:
        y = g.add("GlobalAveragePool", y)
    more = {
        "Flatten": [],
        "Reshape": [np.array([0, CHANNELS], np.int64)],
        "Squeeze": [np.array([2, 3], np.int64)],
    }
    y = g.add(flatten, y, *(g.constant(array) for array in more[flatten]))
    kinds = rewritten(g.model(y), passes.choose_layout)
    assert kinds["Transpose"] == 1


def test_a_reduction_that_drops_its_axes_needs_no_transpose() -> None:
    g = GraphBuilder()
    y = g.add("ReduceMean", g.binary_conv("x"), g.constant(np.array([2, 3], np.int64)), keepdims=0)
    assert rewritten(g.model(y), passes.choose_layout)["Transpose"] == 1


def test_flattening_pixels_keeps_their_order() -> None:
    g = GraphBuilder()
    kinds = rewritten(g.model(g.add("Flatten", g.binary_conv("x"))), passes.choose_layout)
    assert kinds["Transpose"] == 2


def test_a_residual_from_the_stem_shares_the_transpose() -> None:
    g = GraphBuilder()
    stem = g.add("Relu", g.add("Conv", "x", g.vector(shape=(CHANNELS, CHANNELS, 1, 1)), pads=[0, 0, 0, 0]))
    y = g.add("Add", g.binary_conv(stem, "a"), stem)
    y = g.add("Add", g.binary_conv(y, "b"), y)
    kinds = rewritten(g.model(g.add("Flatten", g.add("GlobalAveragePool", y))), passes.choose_layout)
    assert kinds["Transpose"] == 1


def test_a_float_convolution_between_keeps_its_layout() -> None:
    g = GraphBuilder()
    y = g.add("Relu", g.binary_conv("x", "a"))
    y = g.add("Conv", y, g.vector(shape=(CHANNELS, CHANNELS, 3, 3)), pads=[1, 1, 1, 1])
    y = g.binary_conv(g.add("Relu", y), "b")
    kinds = rewritten(g.model(g.add("Flatten", g.add("GlobalAveragePool", y))), passes.choose_layout)
    assert kinds["Conv"] == 1 and kinds["Transpose"] == 3


def test_the_stem_stays_nchw_and_the_pooled_tensor_is_transposed() -> None:
    g = GraphBuilder()
    stem = g.add("Relu", g.add("Conv", "x", g.vector(shape=(CHANNELS, CHANNELS, 3, 3)), pads=[1, 1, 1, 1]))
    pooled = g.add("MaxPool", stem, kernel_shape=[2, 2], strides=[2, 2])
    model = g.model(g.add("Add", g.binary_conv(pooled), pooled))
    rewritten(model, passes.choose_layout)
    first = passes.remaining_transposes(model)[0]
    assert first.after == "MaxPool"


def test_a_graph_without_binary_layers_is_left_alone() -> None:
    g = GraphBuilder()
    kinds = rewritten(g.model(g.add("GlobalAveragePool", g.add("Relu", "x"))), passes.choose_layout)
    assert kinds == {"Relu": 1, "GlobalAveragePool": 1}


def test_the_cheapest_cut_is_found_and_ties_leave_the_sink_the_least() -> None:
    graph = CutGraph("s", "t")
    for start, end, capacity in (
        ("s", "a", 3),
        ("a", "b", 2),
        ("b", "t", 2),
        ("a", "t", INFINITE // 2),
        ("s", "b", 1),
    ):
        graph.add(start, end, capacity)
    assert graph.sink_side() == {"t", "a"} or graph.sink_side() == {"t", "a", "b"}
    tie = CutGraph("s", "t")
    tie.add("s", "a", 1)
    tie.add("a", "t", 1)
    assert tie.sink_side() == {"t"}
