"""The convolution of the image and what follows it becomes one operator, where the operator can do it all."""

from __future__ import annotations

import numpy as np
import pytest
from pass_graphs import CHANNELS, GraphBuilder, rewritten

from dirnet_convert.onnx_export import passes

STEPS = (
    passes.choose_layout,
    passes.merge_binarize,
    passes.fuse_epilogue,
    passes.fuse_stem,
    passes.fuse_bits,
)


def image_conv(g: GraphBuilder, *, bias: bool = True, **attributes: object) -> str:
    """A convolution of three channels of the input, x (N, 8, 6, 4)."""
    image = g.add("Gather", "x", g.constant(np.array([0, 3, 5], np.int64)), axis=1)
    inputs = [image, g.vector(shape=(CHANNELS, 3, 3, 3)), *([g.vector()] if bias else [])]
    return g.add("Conv", *inputs, **({"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]} | attributes))


def clipped(g: GraphBuilder, y: str) -> str:
    return g.add("Clip", y, g.constant(np.float32(-0.5)), g.constant(np.float32(0.5)))


def pooled(g: GraphBuilder, y: str, **attributes: object) -> str:
    return g.add(
        "MaxPool", y, **({"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]} | attributes)
    )


@pytest.mark.parametrize("bias", [True, False])
def test_clip_pooling_and_bits_go_into_the_stem(bias: bool) -> None:
    g = GraphBuilder()
    stem = pooled(g, clipped(g, image_conv(g, bias=bias)))
    kinds = rewritten(g.model(g.add("Add", g.binary_conv(stem), stem)), *STEPS)
    assert kinds["StemConv2dWithBits"] == 1
    assert not {"Conv", "Clip", "MaxPool", "Binarize"} & kinds.keys()
    # Out of the graph only.
    assert kinds["Transpose"] == 1


def test_bits_alone_leave_where_nobody_reads_the_floats() -> None:
    g = GraphBuilder()
    kinds = rewritten(g.model(g.binary_conv(g.add("Relu", image_conv(g)))), *STEPS)
    assert kinds["StemConv2dToBits"] == 1 and "Relu" not in kinds


def test_a_stride_is_kept() -> None:
    g = GraphBuilder()
    kinds = rewritten(g.model(g.binary_conv(image_conv(g, strides=[2, 2]))), *STEPS)
    assert kinds["StemConv2dToBits"] == 1


def prelu(g: GraphBuilder, y: str, low: float = 0.0, high: float = 1.0) -> str:
    return g.add("PRelu", y, g.vector(low, high, (CHANNELS, 1, 1)))


def shifted(g: GraphBuilder, y: str) -> str:
    return g.add("Add", y, g.vector(shape=(CHANNELS, 1, 1)))


@pytest.mark.parametrize("pooling", [True, False])
@pytest.mark.parametrize("negative", [True, False], ids=["any slope", "slopes that keep the order"])
def test_a_shift_and_a_prelu_go_into_the_stem(pooling: bool, negative: bool) -> None:
    g = GraphBuilder()
    stem = prelu(g, shifted(g, image_conv(g)), -1.0 if negative else 0.0)
    stem = pooled(g, stem) if pooling else stem
    kinds = rewritten(g.model(g.add("Add", g.binary_conv(stem), stem)), *STEPS)
    assert kinds["StemConv2dPReluWithBits"] == 1
    assert not {"Conv", "PRelu", "MaxPool", "Binarize"} & kinds.keys()
    assert kinds["Transpose"] == 1


def test_a_clip_before_a_leaky_relu_goes_into_the_stem() -> None:
    g = GraphBuilder()
    stem = g.add("LeakyRelu", clipped(g, image_conv(g)), alpha=0.1)
    kinds = rewritten(g.model(g.binary_conv(stem)), *STEPS)
    assert kinds["StemConv2dPReluToBits"] == 1 and not {"Clip", "LeakyRelu"} & kinds.keys()


def test_what_comes_in_another_order_stays_behind_the_stem() -> None:
    g = GraphBuilder()
    stem = shifted(g, clipped(g, prelu(g, image_conv(g))))
    kinds = rewritten(g.model(g.binary_conv(stem)), *STEPS)
    assert kinds["StemConv2dPRelu"] == 1 and kinds["Clip"] == 1


@pytest.mark.parametrize("slope", [np.inf, np.nan])
def test_a_slope_that_is_no_number_stays(slope: float) -> None:
    g = GraphBuilder()
    slopes = g.constant(np.full((CHANNELS, 1, 1), slope, np.float32))
    kinds = rewritten(g.model(g.binary_conv(g.add("PRelu", image_conv(g), slopes))), *STEPS)
    assert kinds["PRelu"] == 1


def test_another_activation_stays() -> None:
    g = GraphBuilder()
    stem = pooled(g, g.add("Sigmoid", clipped(g, image_conv(g))))
    assert rewritten(g.model(g.binary_conv(stem)), *STEPS)["Conv"] == 1


def wide(g: GraphBuilder) -> str:
    return g.add("Conv", "x", g.vector(shape=(CHANNELS, CHANNELS, 3, 3)), pads=[1, 1, 1, 1])


def dilated(g: GraphBuilder) -> str:
    return image_conv(g, dilations=[2, 2], pads=[2, 2, 2, 2])


def sized_by_the_runtime(g: GraphBuilder) -> str:
    image = g.add("Gather", "x", g.constant(np.array([0, 3, 5], np.int64)), axis=1)
    return g.add("Conv", image, g.vector(shape=(CHANNELS, 3, 3, 3)), auto_pad="SAME_UPPER")


def pooled_with_a_ceiling(g: GraphBuilder) -> str:
    return pooled(g, image_conv(g), ceil_mode=1, kernel_shape=[2, 2], pads=[0, 0, 0, 0])


def read_twice(g: GraphBuilder) -> str:
    y = image_conv(g)
    return g.add("Add", clipped(g, y), y)


@pytest.mark.parametrize(
    "build",
    [wide, dilated, sized_by_the_runtime, pooled_with_a_ceiling, read_twice],
    ids=lambda build: build.__name__,
)
def test_what_the_operator_cannot_do_stays(build) -> None:
    g = GraphBuilder()
    kinds = rewritten(g.model(g.binary_conv(build(g))), *STEPS)
    assert kinds["Conv"] == 1 and not any(kind.startswith("StemConv2d") for kind in kinds)
