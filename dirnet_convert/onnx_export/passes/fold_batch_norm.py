"""Batch normalization goes into the convolution before it: scale and bias, or the weights of a float one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from dirnet_convert.onnx_export.ir_tools import (
    TO_NCHW,
    add_constant,
    constant,
    is_op,
    is_ours,
    is_transpose,
    replace_output,
    sole_consumer,
)
from dirnet_convert.onnx_export.labels import AFFINE_KEY, MODULE_KEY


def affine_of_batch_norm(node: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (a, b) in float64 with BatchNorm(x) = a * x + b per channel; None where it is not constant.

    Source: BatchNorm(x) = gamma * (x - mean) / sqrt(variance + epsilon) + beta, hence
    a = gamma / sqrt(variance + epsilon) and b = beta - mean * a.
    """
    if not is_op(node, "BatchNormalization") or any(output.uses() for output in node.outputs[1:]):
        return None
    values = [constant(value) for value in node.inputs[1:5]]
    if any(value is None for value in values):
        return None
    gamma, beta, mean, variance = (value.astype(np.float64) for value in values)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    a = gamma / np.sqrt(variance + epsilon)
    return a, beta - mean * a


def fold_batch_norm(model: ir.Model) -> int:
    """Fold every batch normalization whose input comes from a convolution alone; return how many."""
    folded = 0
    for node in list(model.graph):
        affine = affine_of_batch_norm(node)
        if affine is None:
            continue
        source = node.inputs[0]
        if sole_consumer(source) is not node:
            continue
        producer = source.producer()
        if is_op(producer, "Conv"):
            done = _into_weights(model.graph, producer, *affine)
        else:
            done = _into_binary_layer(model.graph, _binary_layer(producer), node, *affine)
        if done:
            replace_output(model.graph, node.outputs[0], source)
            model.graph.remove(node, safe=True)
            folded += 1
    return folded


def _binary_layer(producer: ir.Node | None) -> ir.Node | None:
    if is_transpose(producer, TO_NCHW):
        inner = producer.inputs[0]
        producer = inner.producer() if sole_consumer(inner) is producer else None
        return producer if is_ours(producer, "BinaryConv2d") else None
    # After BinaryGemm the channels of batch normalization are the last axis only for (N, C).
    if is_ours(producer, "BinaryGemm") and producer.outputs[0].shape and len(producer.outputs[0].shape) == 2:
        return producer
    return None


def _into_binary_layer(
    graph: ir.Graph, layer: ir.Node | None, norm: ir.Node, a: np.ndarray, b: np.ndarray
) -> bool:
    if layer is None:
        return False
    scale, bias = constant(layer.inputs[2]), constant(layer.inputs[3])
    if scale is None or bias is None:
        return False
    # a * (dot * scale + bias) + b = dot * (scale * a) + (bias * a + b)
    names = layer.inputs[2].name, layer.inputs[3].name
    layer.replace_input_with(2, add_constant(graph, names[0], (scale * a).astype(np.float32)))
    layer.replace_input_with(3, add_constant(graph, names[1], (bias * a + b).astype(np.float32)))
    layer.metadata_props[AFFINE_KEY] = norm.metadata_props.get(MODULE_KEY, "")
    return True


def _into_weights(graph: ir.Graph, conv: ir.Node, a: np.ndarray, b: np.ndarray) -> bool:
    weight = constant(conv.inputs[1])
    bias_value = conv.inputs[2] if len(conv.inputs) > 2 else None
    bias = np.zeros_like(b) if bias_value is None else constant(bias_value)
    if weight is None or bias is None:
        return False
    # a * (w . x + bias) + b = (a * w) . x + (a * bias + b)
    scaled = weight * a.reshape(-1, *(1 for _ in range(weight.ndim - 1)))
    name = conv.inputs[1].name
    bias_name = name.removesuffix(".weight") + ".bias"
    conv.resize_inputs(3)
    conv.replace_input_with(1, add_constant(graph, name, scaled.astype(np.float32)))
    conv.replace_input_with(2, add_constant(graph, bias_name, (a * bias + b).astype(np.float32)))
    return True
