"""Small graphs of binary layers, and what every rewrite of one must keep."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import common

from dirnet_convert.onnx_export.operators import DOMAIN, add_functions
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
