"""Each rewrite alone, on the smallest graph that it is for, and on graphs that it must leave alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import common

from dirnet_convert.onnx_export import passes
from dirnet_convert.onnx_export.operators import DOMAIN, add_functions
from dirnet_convert.onnx_export.passes.min_cut import INFINITE, CutGraph
from dirnet_convert.runtime.session import Kernels, load_session

SEED = 7
CHANNELS = 8
BATCH = 2
CONV = {
    "channels": CHANNELS,
    "kernel_shape": [3, 3],
    "strides": [1, 1],
    "pads": [1, 1, 1, 1],
    "dilations": [1, 1],
    "group": 1,
}
TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


class GraphBuilder:
    """Builds a graph with one input x (N, 8, 6, 4)."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(SEED)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(
        self,
        op_type: str,
        *inputs: str,
        name: str = "",
        outputs: int = 1,
        domain: str = "",
        **attributes: object,
    ) -> str:
        output = f"v{len(self.nodes)}"
        names = [output, *(f"{output}_{i}" for i in range(1, outputs))]
        self.nodes.append(
            helper.make_node(
                op_type, inputs, names, name=name or f"{op_type}_{output}", domain=domain, **attributes
            )
        )
        return output

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def vector(self, low: float = -1.0, high: float = 1.0, shape: tuple[int, ...] = (CHANNELS,)) -> str:
        return self.constant(self.random.uniform(low, high, shape).astype(np.float32))

    def binary_conv(self, x: str, name: str = "conv") -> str:
        """x (N, C, H, W) through Binarize and BinaryConv2d, as the exporter writes them."""
        nhwc = self.add("Transpose", x, perm=TO_NHWC)
        bits = self.add(
            "Binarize", nhwc, self.vector(), domain=DOMAIN, channels=CHANNELS, name=f"{name}/Binarize"
        )
        words = self.constant(self.random.integers(0, 256, (CHANNELS, 3, 3, 1), np.uint64))
        y = self.add(
            "BinaryConv2d", bits, words, self.vector(0.1, 1), self.vector(), domain=DOMAIN, name=name, **CONV
        )
        return self.add("Transpose", y, perm=TO_NCHW)

    def batch_norm(self, x: str) -> str:
        return self.add(
            "BatchNormalization", x, self.vector(), self.vector(), self.vector(), self.vector(0.5, 2)
        )

    def model(self, *outputs: str) -> ir.Model:
        proto = self._proto(list(outputs))
        produced = [name for node in self.nodes for name in node.output]
        # The rewrites need shapes, which the exporter has from PyTorch; here a run tells them.
        values = _run(self._proto(produced))
        infos = [_value_info(name, value) for name, value in zip(produced, values, strict=True)]
        del proto.graph.output[:]
        proto.graph.output.extend(info for info in infos if info.name in outputs)
        proto.graph.value_info.extend(info for info in infos if info.name not in outputs)
        return ir.from_proto(proto)

    def _proto(self, outputs: list[str]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", CHANNELS, 6, 4])],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        imports = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
        proto = helper.make_model(graph, opset_imports=imports, ir_version=10)
        add_functions(proto)
        return proto


def _value_info(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    shape = ["N", *value.shape[1:]] if value.ndim > 1 else list(value.shape)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape)


def _run(proto: onnx.ModelProto) -> list[np.ndarray]:
    x = np.random.default_rng(SEED).standard_normal((BATCH, CHANNELS, 6, 4)).astype(np.float32)
    return load_session(proto.SerializeToString(), kernels=Kernels.STOCK).run(None, {"x": x})


def run(model: ir.Model) -> list[np.ndarray]:
    common.NameFixPass()(model)
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    add_functions(proto)
    onnx.checker.check_model(proto)
    return _run(proto)


def rewritten(model: ir.Model, *rewrites: object, tolerance: float = 1e-5) -> Counter[str]:
    """Apply ``rewrites``, check that outputs stay and that a second time changes nothing; count operators."""
    before = run(model)
    for rewrite in rewrites:
        rewrite(model)
    for old, new in zip(before, run(model), strict=True):
        np.testing.assert_allclose(new, old, rtol=0, atol=tolerance)
    kinds = Counter(node.op_type for node in model.graph)
    for rewrite in rewrites:
        rewrite(model)
    assert Counter(node.op_type for node in model.graph) == kinds
    return kinds


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
