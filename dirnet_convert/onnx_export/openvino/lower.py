"""Binary layers of an exported graph in terms of what OpenVINO has, in PyTorch's layout (N, C, H, W).

A convolution that its plug-in computes on bits becomes one node of its own domain, which `build.py` turns
into FakeQuantize and BinaryConvolution; any other binary layer becomes a float one over -1 and +1.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from dirnet_convert.onnx_export.ir_tools import (
    TO_NCHW,
    add_constant,
    constant,
    integer,
    ints,
    is_op,
    is_ours,
    make_node,
    new_value,
    remove_unused,
    replace_output,
    sole_consumer,
)
from dirnet_convert.onnx_export.operators import unpack_bits

PLACEHOLDER_DOMAIN = "ai.dirnet.openvino"
PLACEHOLDER = "BinaryConvolution"
# Its kernel reads whole bytes of bits: with other numbers of channels it computes something else (2026.4.1).
_CHANNEL_MULTIPLE = 8
# Its kernel refuses wider windows for some strides.
_WIDEST_WINDOW = 7
# With steps of three pixels and a wider window it computes something else (2026.4.1).
_LONGEST_STEP = 2


class Arithmetic(enum.StrEnum):
    """How OpenVINO computes a binary layer."""

    BITS = "bits"
    FLOAT = "float"


@dataclass(frozen=True)
class LoweredLayer:
    """One binary layer: its node's name, the tensor that it binarizes, its thresholds, how it is computed."""

    name: str
    input: str
    threshold: np.ndarray
    arithmetic: Arithmetic
    reason: str = ""


def lower(model: ir.Model, side_padding: int) -> tuple[LoweredLayer, ...]:
    """Rewrite every binary layer of ``model``; return them in the order in which they run.

    ``side_padding`` is the most pixels that OpenVINO's kernel pads at the left and at the right.
    """
    layers = []
    for node in list(model.graph):
        if is_ours(node, "BinaryConv2d"):
            layers.append(_lower_convolution(model.graph, node, side_padding))
        elif is_ours(node, "BinaryGemm"):
            layers.append(_lower_product(model.graph, node))
    remove_unused(model)
    return tuple(layers)


def why_not_bits(node: ir.Node, side_padding: int) -> str:
    """Return why OpenVINO does not compute the BinaryConv2d ``node`` on bits; empty where it does."""
    if integer(node, "group", 1) != 1:
        return "its BinaryConvolution knows no groups"
    if integer(node, "channels", 0) % _CHANNEL_MULTIPLE:
        return f"its kernel needs a multiple of {_CHANNEL_MULTIPLE} input channels"
    _, left, _, right = ints(node, "pads", (0, 0, 0, 0))
    if max(left, right) > min(side_padding, node.outputs[0].shape[2]):
        return f"its kernel pads the sides by {side_padding} pixels or the output's width at most"
    if max(ints(node, "strides", (1, 1))) > _LONGEST_STEP:
        return f"its kernel steps by {_LONGEST_STEP} pixels at most"
    if ints(node, "kernel_shape", (1, 1))[1] > _WIDEST_WINDOW:
        return f"its kernel has windows of {_WIDEST_WINDOW} at most"
    return ""


def _lower_convolution(graph: ir.Graph, node: ir.Node, side_padding: int) -> LoweredLayer:
    binarize = node.inputs[0].producer()
    # Both stand between two transposes as the stand-in wrote them, since no layout was chosen.
    x = binarize.inputs[0].producer().inputs[0]
    y = sole_consumer(node.outputs[0]).outputs[0]
    threshold = constant(binarize.inputs[1]).reshape(1, -1, 1, 1)
    reason = why_not_bits(node, side_padding)
    group = integer(node, "group", 1)
    words = constant(node.inputs[1])
    signs = unpack_bits(words, integer(node, "channels", 0) // group).transpose(TO_NCHW)
    window = {
        "kernel_shape": ints(node, "kernel_shape", ()),
        "strides": ints(node, "strides", ()),
        "pads": ints(node, "pads", ()),
        "dilations": ints(node, "dilations", ()),
    }
    dot = new_value(y, f"{node.name}.dot", y.shape)
    if reason:
        inputs = [_signs(graph, node, x, threshold), add_constant(graph, f"{node.name}.signs", signs)]
        conv = make_node("Conv", inputs, {**window, "group": group}, [dot], like=node)
    else:
        # OpenVINO's bits follow each other from the lowest one of each byte on.
        packed = np.packbits(signs.reshape(-1) > 0, bitorder="little")
        inputs = [
            x,
            add_constant(graph, f"{node.name}.threshold", threshold),
            add_constant(graph, f"{node.name}.bits", packed),
        ]
        window = {**window, "weight_shape": signs.shape, "apart": int(_is_sum(x))}
        conv = make_node(PLACEHOLDER, inputs, window, [dot], like=node, domain=PLACEHOLDER_DOMAIN)
    graph.insert_before(node, conv)
    _scale_and_shift(graph, node, dot, y)
    return LoweredLayer(node.name, x.name, threshold, Arithmetic.FLOAT if reason else Arithmetic.BITS, reason)


def _lower_product(graph: ir.Graph, node: ir.Node) -> LoweredLayer:
    binarize = node.inputs[0].producer()
    x, y = binarize.inputs[0], node.outputs[0]
    threshold = constant(binarize.inputs[1]).reshape(-1)
    weight = unpack_bits(constant(node.inputs[1]), integer(node, "channels", 0)).T
    dot = new_value(y, f"{node.name}.dot", y.shape)
    inputs = [_signs(graph, node, x, threshold), add_constant(graph, f"{node.name}.signs", weight)]
    graph.insert_before(node, make_node("MatMul", inputs, {}, [dot], like=node))
    _scale_and_shift(graph, node, dot, y)
    reason = "it has no binary matrix product"
    return LoweredLayer(node.name, x.name, threshold, Arithmetic.FLOAT, reason)


def _is_sum(x: ir.Value) -> bool:
    """Tell whether ``x`` is the sum of two computed values, but for steps of one value behind it."""
    producer = x.producer()
    while producer is not None:
        computed = [value for value in producer.inputs if value is not None and constant(value) is None]
        if len(computed) != 1:
            return is_op(producer, "Add")
        producer = computed[0].producer()
    return False


def _signs(graph: ir.Graph, node: ir.Node, x: ir.Value, threshold: np.ndarray) -> ir.Value:
    """Write x >= threshold ? 1 : -1 in front of ``node``."""
    above = ir.Value(name=f"{node.name}.above", shape=x.shape, type=ir.TensorType(ir.DataType.BOOL))
    signs = new_value(x, f"{node.name}.input_signs", x.shape)
    at = add_constant(graph, f"{node.name}.threshold", threshold)
    one, minus_one = (
        add_constant(graph, f"{node.name}.{name}", np.float32(value))
        for name, value in (("one", 1), ("minus_one", -1))
    )
    compare = make_node("GreaterOrEqual", [x, at], {}, [above], like=node)
    choose = make_node("Where", [above, one, minus_one], {}, [signs], like=node)
    graph.insert_before(node, [compare, choose])
    return signs


def _scale_and_shift(graph: ir.Graph, node: ir.Node, dot: ir.Value, y: ir.Value) -> None:
    """Write dot * scale + bias in place of ``y``, which the binary layer ``node`` yields."""
    scale, bias = constant(node.inputs[2]), constant(node.inputs[3])
    shape = (1, -1, 1, 1) if is_ours(node, "BinaryConv2d") else (-1,)
    scaled, shifted = new_value(y, f"{node.name}.scaled", y.shape), new_value(y, "shifted", y.shape)
    for op_type, value, vector, result in (
        ("Mul", dot, scale, scaled),
        ("Add", scaled, bias, shifted),
    ):
        held = add_constant(graph, f"{node.name}.{op_type}", vector.reshape(shape))
        graph.insert_before(node, make_node(op_type, [value, held], {}, [result], like=node))
    replace_output(graph, y, shifted)
