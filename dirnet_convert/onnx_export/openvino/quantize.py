"""An exported model's INT8 layers in OpenVINO's terms: the same steps, the same bytes as weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from dirnet_convert.onnx_export.ir_tools import add_constant, constant, integer, is_op, make_node, new_value
from dirnet_convert.onnx_export.operators import DOMAIN
from dirnet_convert.onnx_export.quantize_stem import quantize_weight
from dirnet_convert.onnx_export.sizes import layer_name
from dirnet_convert.runtime.int8 import INT8_STEM

_LAYERS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class InputStep:
    """How a layer's input becomes bytes: q = round(x / scale) + zero_point."""

    scale: np.float32
    zero_point: np.uint8


def input_steps(model: onnx.ModelProto) -> dict[str, InputStep]:
    """Return the step of every INT8 layer of an exported ``model``, by the module path of the layer."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    steps: dict[str, InputStep] = {}
    written = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.domain == DOMAIN and node.op_type.startswith(INT8_STEM):
            values = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            scale, zero_point = values["input_scale"], values["input_zero_point"]
        elif node.op_type in _LAYERS and node.input[0] in written and node.input[1] in written:
            scale, zero_point = (
                onnx.numpy_helper.to_array(held[name]) for name in written[node.input[0]].input[1:]
            )
        else:
            continue
        steps[layer_name(node)] = InputStep(np.float32(scale), np.uint8(zero_point))
    return steps


def quantize_layers(model: ir.Model, steps: Mapping[str, InputStep]) -> int:
    """Let every layer of ``model`` that ``steps`` names multiply bytes; return how many do."""
    count = 0
    for node in list(model.graph):
        if not is_op(node, *_LAYERS):
            continue
        step, weight = steps.get(node.name.partition("/")[0]), constant(node.inputs[1])
        if step is None or weight is None:
            continue
        axis = 1 if node.op_type == "MatMul" or (node.op_type == "Gemm" and not _transposed(node)) else 0
        node.replace_input_with(0, _rounded(model.graph, node, step))
        node.replace_input_with(1, _bytes(model.graph, node, weight, axis))
        count += 1
    return count


def _transposed(gemm: ir.Node) -> bool:
    return integer(gemm, "transB", 0) == 1


def _rounded(graph: ir.Graph, node: ir.Node, step: InputStep) -> ir.Value:
    x = node.inputs[0]
    scale = add_constant(graph, f"{node.name}/input_scale", np.array(step.scale))
    zero_point = add_constant(graph, f"{node.name}/input_zero_point", np.array(step.zero_point))
    q = ir.Value(name=f"{node.name}/q", shape=x.shape, type=ir.TensorType(ir.DataType.UINT8))
    rounded = new_value(x, f"{node.name}/rounded", x.shape)
    made = [
        make_node("QuantizeLinear", [x, scale, zero_point], {}, [q], like=node),
        make_node("DequantizeLinear", [q, scale, zero_point], {}, [rounded], like=node),
    ]
    for number, new in enumerate(made):
        new.name = f"{node.name}/{new.op_type}_{number}"
    graph.insert_before(node, made)
    return rounded


def _bytes(graph: ir.Graph, node: ir.Node, weight: np.ndarray, axis: int) -> ir.Value:
    moved = np.moveaxis(weight, axis, 0)
    quantized, scale = quantize_weight(moved.reshape(*moved.shape, *(1,) * (4 - moved.ndim)))
    stored = np.moveaxis(quantized.reshape(moved.shape), 0, axis)
    inputs = [
        add_constant(graph, f"{node.name}/weight_int8", stored),
        add_constant(graph, f"{node.name}/weight_scale", scale),
        add_constant(graph, f"{node.name}/weight_zero_point", np.zeros(len(scale), np.int8)),
    ]
    output = new_value(node.inputs[1], f"{node.name}/weight", node.inputs[1].shape)
    made = make_node("DequantizeLinear", inputs, {"axis": axis}, [output], like=node)
    made.name = f"{node.name}/DequantizeLinear"
    graph.insert_before(node, made)
    return output
