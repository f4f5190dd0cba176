"""What follows a binary convolution alone goes into it: constants, the residual, a clip and a PReLU.

The operator computes, each step rounded on its own: v = dot * scale + bias; v = v + residual;
v = clip(v, clip_min, clip_max); v = v < 0 ? slope * v : v. Only chains in that order are taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from dirnet_convert.onnx_export.ir_tools import (
    add_constant,
    constant,
    dims,
    is_op,
    is_ours,
    make_node,
    new_value,
    remove_unused,
    replace_output,
    sole_consumer,
)
from dirnet_convert.onnx_export.labels import AFFINE_KEY, MODULE_KEY, OUTPUT_KEY
from dirnet_convert.onnx_export.operators import DOMAIN


@dataclass
class _Epilogue:
    scale: np.ndarray
    bias: np.ndarray
    residual: ir.Value | None = None
    clip: tuple[float, float] | None = None
    slope: np.ndarray | None = None
    module: str = ""
    bias_is_shifted: bool = False
    taken: list[ir.Node] = field(default_factory=list)

    @property
    def is_activated(self) -> bool:
        return self.clip is not None or self.slope is not None


def fuse_epilogue(model: ir.Model) -> int:
    """Fuse the chain behind every BinaryConv2d; return how many nodes went into convolutions."""
    fused = 0
    # From the last to the first: where two convolutions are added, the later one takes the sum.
    for conv in reversed(list(model.graph)):
        if not is_ours(conv, "BinaryConv2d"):
            continue
        scale, bias = constant(conv.inputs[2]), constant(conv.inputs[3])
        if scale is None or bias is None:
            continue
        epilogue = _Epilogue(scale, bias)
        value = conv.outputs[0]
        while (reader := sole_consumer(value)) is not None and _take(epilogue, value, reader):
            epilogue.taken.append(reader)
            value = reader.outputs[0]
        if epilogue.taken:
            _write(model.graph, conv, epilogue)
            fused += len(epilogue.taken)
    remove_unused(model)
    return fused


def _take(e: _Epilogue, value: ir.Value, node: ir.Node) -> bool:
    """Take ``node``, the only reader of ``value``, into the epilogue where its place in the order allows."""
    if is_op(node, "Add", "Mul"):
        if e.is_activated:
            return False
        other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
        vector = per_channel(other, e.bias.size)
        if vector is not None:
            return _take_constant(e, node, vector)
        if node.op_type == "Mul" or e.residual is not None or other is value:
            return False
        if dims(other) is None or dims(other) != dims(value):
            return False
        e.residual = _without_constant(e, other)
        return True
    activation = clip_range(node, value)
    if activation is not None and not e.is_activated:
        e.clip, e.module = activation, node.metadata_props.get(MODULE_KEY, "")
        return True
    slope = slope_of(node, value, e.bias.size)
    if slope is not None and e.slope is None:
        e.slope, e.module = slope, node.metadata_props.get(MODULE_KEY, "")
        return True
    return False


def _without_constant(e: _Epilogue, residual: ir.Value) -> ir.Value:
    """Return the residual without a per-channel constant added to it alone, which goes into the bias."""
    producer = residual.producer()
    if not is_op(producer, "Add") or sole_consumer(residual) is None:
        return residual
    for value, other in (producer.inputs, reversed(producer.inputs)):
        vector = per_channel(other, e.bias.size)
        if vector is not None and dims(value) == dims(residual):
            _take_constant(e, producer, vector)
            return value
    return residual


def _take_constant(e: _Epilogue, node: ir.Node, vector: np.ndarray) -> bool:
    if is_op(node, "Add"):
        # (v + residual) + c = (v + c) + residual, up to rounding.
        e.bias = (e.bias.astype(np.float64) + vector).astype(np.float32)
        e.bias_is_shifted = True
        return True
    if e.residual is not None:
        return False
    # (dot * scale + bias) * c = dot * (scale * c) + bias * c
    e.scale = (e.scale.astype(np.float64) * vector).astype(np.float32)
    e.bias = (e.bias.astype(np.float64) * vector).astype(np.float32)
    e.bias_is_shifted = True
    return True


def per_channel(value: ir.Value | None, channels: int, axis: int = -1) -> np.ndarray | None:
    """Return a constant as (channels,) where it varies along ``axis`` (from the end) at most, else None."""
    array = constant(value)
    if array is None or array.size not in (1, channels):
        return None
    if array.size > 1 and (array.ndim < -axis or array.shape[axis] != array.size):
        return None
    return np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float32)


def clip_range(node: ir.Node, value: ir.Value) -> tuple[float, float] | None:
    """Return the bounds where ``node`` is a clip of ``value`` with constant bounds, or a ReLU, else None."""
    if is_op(node, "Relu"):
        return 0.0, math.inf
    if not is_op(node, "Clip") or node.inputs[0] is not value:
        return None
    bounds = []
    for index, unbounded in ((1, -math.inf), (2, math.inf)):
        bound = node.inputs[index] if index < len(node.inputs) else None
        array = constant(bound)
        if bound is not None and array is None:
            return None
        bounds.append(unbounded if array is None else float(array))
    return bounds[0], bounds[1]


def slope_of(node: ir.Node, value: ir.Value, channels: int, axis: int = -1) -> np.ndarray | None:
    """Return the slope (channels,) where ``node`` is a PReLU of ``value`` with a constant one, else None."""
    if is_op(node, "LeakyRelu"):
        return np.full(channels, node.attributes.get_float("alpha", 0.01), np.float32)
    if is_op(node, "PRelu") and node.inputs[0] is value:
        return per_channel(node.inputs[1], channels, axis)
    return None


def _write(graph: ir.Graph, conv: ir.Node, e: _Epilogue) -> None:
    last = e.taken[-1]
    scale = add_constant(graph, conv.inputs[2].name, e.scale)
    bias = add_constant(graph, conv.inputs[3].name, e.bias)
    inputs = [*conv.inputs[:2], scale, bias]
    attributes = {name: attribute.value for name, attribute in conv.attributes.items()}
    op_type = "BinaryConv2d"
    if e.is_activated or e.residual is not None:
        clip_min, clip_max = e.clip or (-math.inf, math.inf)
        attributes |= {"clip_min": clip_min, "clip_max": clip_max}
        slope = np.ones_like(e.bias) if e.slope is None else e.slope
        inputs.append(add_constant(graph, f"{conv.name}.slope", slope))
        op_type = "BinaryConv2dAct"
    if e.residual is not None:
        inputs.append(e.residual)
        op_type = "BinaryConv2dAddAct"
    output = new_value(last.outputs[0], "fused", last.outputs[0].shape)
    node = make_node(op_type, inputs, attributes, [output], like=conv, domain=DOMAIN)
    if e.is_activated:
        node.metadata_props[OUTPUT_KEY] = e.module
    if e.bias_is_shifted:
        # dot * scale + bias is no longer the output of the batch normalization.
        node.metadata_props.pop(AFFINE_KEY, None)
    graph.insert_before(last, node)
    replace_output(graph, last.outputs[0], output)
