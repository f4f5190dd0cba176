"""Each rewrite alone, on the smallest graph that it is for, and on graphs that it must leave alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from pass_graphs import CHANNELS, CONV, TO_NHWC, GraphBuilder, rewritten

from dirnet_convert.onnx_export import passes
from dirnet_convert.onnx_export.operators import DOMAIN


def test_batch_norm_folds_into_a_binary_convolution() -> None:
    g = GraphBuilder()
    kinds = rewritten(g.model(g.batch_norm(g.binary_conv("x"))), passes.fold_batch_norm)
    assert kinds == {"Transpose": 2, "Binarize": 1, "BinaryConv2d": 1}


@pytest.mark.parametrize("with_bias", [False, True])
def test_batch_norm_folds_into_a_float_convolution(with_bias: bool) -> None:
    g = GraphBuilder()
    inputs = ["x", g.vector(shape=(CHANNELS, CHANNELS, 3, 3)), *([g.vector()] if with_bias else [])]
    kinds = rewritten(g.model(g.batch_norm(g.add("Conv", *inputs))), passes.fold_batch_norm)
    assert kinds == {"Conv": 1}


def test_batch_norm_stays_where_the_convolution_is_read_twice() -> None:
    g = GraphBuilder()
    y = g.binary_conv("x")
    kinds = rewritten(g.model(g.add("Add", g.batch_norm(y), y)), passes.fold_batch_norm)
    assert kinds["BatchNormalization"] == 1


def test_max_pooling_is_done_on_bits_where_only_bits_are_read() -> None:
    g = GraphBuilder()
    pooled = g.add("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    kinds = rewritten(g.model(g.binary_conv(pooled)), passes.hoist_binarize)
    assert kinds["BinaryMaxPool2d"] == 1 and kinds["MaxPool"] == 0


def test_max_pooling_stays_where_its_floats_are_read() -> None:
    g = GraphBuilder()
    pooled = g.add("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2])
    kinds = rewritten(g.model(g.add("Add", g.binary_conv(pooled), pooled)), passes.hoist_binarize)
    assert kinds["BinaryMaxPool2d"] == 0 and kinds["MaxPool"] == 1


def test_equal_binarize_nodes_become_one() -> None:
    g = GraphBuilder()
    nhwc = g.add("Transpose", "x", perm=TO_NHWC)
    threshold = g.random.standard_normal(CHANNELS).astype(np.float32)
    words = g.constant(g.random.integers(0, 256, (CHANNELS, 3, 3, 1), np.uint64))
    outputs = []
    for name, array in (("a", threshold), ("b", threshold.copy()), ("c", threshold + 1)):
        bits = g.add("Binarize", nhwc, g.constant(array), domain=DOMAIN, channels=CHANNELS)
        outputs.append(
            g.add("BinaryConv2d", bits, words, g.vector(), g.vector(), domain=DOMAIN, name=name, **CONV)
        )
    assert rewritten(g.model(*outputs), passes.merge_binarize)["Binarize"] == 2


FUSE = (passes.choose_layout, passes.merge_binarize, passes.fuse_epilogue, passes.fuse_bits)


def pooled_model(g: GraphBuilder, y: str) -> ir.Model:
    return g.model(g.add("Flatten", g.add("GlobalAveragePool", y)))


def test_a_whole_epilogue_goes_into_the_convolution() -> None:
    g = GraphBuilder()
    y = g.add("Add", "x", g.binary_conv("x"))
    y = g.add("Add", y, g.vector(shape=(CHANNELS, 1, 1)))
    y = g.add("Clip", y, g.constant(np.float32(-0.5)), g.constant(np.float32(2)))
    y = g.add("PRelu", y, g.vector(shape=(CHANNELS, 1, 1)))
    kinds = rewritten(pooled_model(g, y), *FUSE)
    assert kinds["BinaryConv2dAddAct"] == 1
    assert not {"Add", "Clip", "PRelu"} & set(kinds)


def test_what_does_not_fit_the_order_stays() -> None:
    g = GraphBuilder()
    y = g.add("PRelu", g.binary_conv("x"), g.vector(shape=(CHANNELS, 1, 1)))
    y = g.add("Relu", g.add("Add", y, "x"))
    kinds = rewritten(pooled_model(g, y), *FUSE)
    assert kinds["BinaryConv2dAct"] == 1 and kinds["Add"] == 1 and kinds["Relu"] == 1


def test_a_value_that_is_read_twice_is_not_fused_away() -> None:
    g = GraphBuilder()
    y = g.binary_conv("x")
    y = g.add("Mul", g.add("Relu", y), g.add("Sigmoid", y))
    kinds = rewritten(pooled_model(g, y), *FUSE)
    assert kinds["BinaryConv2d"] == 1 and kinds["Relu"] == 1


def test_a_broadcast_sum_is_no_residual() -> None:
    g = GraphBuilder()
    y = g.add("Add", g.binary_conv("x"), g.add("GlobalAveragePool", "x"))
    assert rewritten(pooled_model(g, y), *FUSE)["BinaryConv2d"] == 1


def test_of_two_summed_convolutions_the_later_takes_the_sum() -> None:
    g = GraphBuilder()
    y = g.add("Relu", g.add("Add", g.binary_conv("x", "a"), g.binary_conv("x", "b")))
    model = pooled_model(g, y)
    kinds = rewritten(model, *FUSE)
    assert kinds["BinaryConv2d"] == 1 and kinds["BinaryConv2dAddAct"] == 1
    assert [n.name for n in model.graph if n.op_type == "BinaryConv2dAddAct"] == ["b"]


def test_constants_around_the_residual_go_into_scale_and_bias() -> None:
    g = GraphBuilder()
    shortcut = g.add("Add", g.add("Sigmoid", "x"), g.vector(shape=(CHANNELS, 1, 1)))
    y = g.add("Mul", g.binary_conv("x"), g.vector(shape=(CHANNELS, 1, 1)))
    kinds = rewritten(pooled_model(g, g.add("Add", y, shortcut)), *FUSE)
    assert kinds["Mul"] == 0 and kinds["Add"] == 0 and kinds["BinaryConv2dAddAct"] == 1


def test_bits_flow_from_convolution_to_convolution() -> None:
    g = GraphBuilder()
    a = g.add("Relu", g.binary_conv("x", "a"))
    b = g.add("Add", g.binary_conv(a, "b"), "x")
    c = g.add("Add", g.binary_conv(b, "c"), b)
    kinds = rewritten(pooled_model(g, c), *FUSE)
    assert kinds["Binarize"] == 1
    assert kinds["BinaryConv2dActToBits"] == 1
    assert kinds["BinaryConv2dAddActWithBits"] == 1
    assert kinds["BinaryConv2dAddAct"] == 1


def test_two_thresholds_on_one_value_leave_one_binarize() -> None:
    g = GraphBuilder()
    a = g.add("Relu", g.binary_conv("x", "a"))
    kinds = rewritten(pooled_model(g, g.add("Sub", g.binary_conv(a, "b"), g.binary_conv(a, "c"))), *FUSE)
    assert kinds["BinaryConv2dActWithBits"] == 1 and kinds["Binarize"] == 2


def test_a_computed_target_of_reshape_becomes_constant() -> None:
    g = GraphBuilder()
    batch = g.add("Shape", "x", start=0, end=1)
    target = g.add("Concat", batch, g.constant(np.array([CHANNELS * 24], np.int64)), axis=0)
    model = g.model(g.add("Reshape", "x", target))
    assert rewritten(model, passes.simplify_reshape) == {"Reshape": 1}


def test_slices_along_different_axes_become_one() -> None:
    g = GraphBuilder()
    y = "x"
    for axis in (2, 3, 1):
        bounds = [g.constant(np.array([value], np.int64)) for value in (1, 6, axis, 2)]
        y = g.add("Slice", y, *bounds)
    assert rewritten(g.model(y), passes.merge_slices) == {"Slice": 1}


def test_slices_along_one_axis_stay() -> None:
    g = GraphBuilder()
    y = "x"
    for _ in range(2):
        bounds = [g.constant(np.array([value], np.int64)) for value in (1, 6, 2, 2)]
        y = g.add("Slice", y, *bounds)
    assert rewritten(g.model(y), passes.merge_slices) == {"Slice": 2}


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[1, 2], [-2, -3]])
def test_a_mean_over_the_image_becomes_a_product(axes: list[int], keepdims: int) -> None:
    g = GraphBuilder()
    nhwc = g.add("Transpose", "x", perm=TO_NHWC)
    mean = g.add("ReduceMean", nhwc, g.constant(np.array(axes, np.int64)), keepdims=keepdims)
    kinds = rewritten(g.model(mean), passes.mean_product)
    assert kinds == {"Transpose": 1, "Reshape": 2, "MatMul": 1}


@pytest.mark.parametrize("axes", [[1], [3], [1, 3], [1, 2, 3]])
def test_a_mean_over_other_axes_stays(axes: list[int]) -> None:
    g = GraphBuilder()
    kinds = rewritten(
        g.model(g.add("ReduceMean", "x", g.constant(np.array(axes, np.int64)))), passes.mean_product
    )
    assert kinds == {"ReduceMean": 1}
