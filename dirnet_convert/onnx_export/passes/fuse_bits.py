"""A Binarize that reads a binary convolution or the stem goes into it: bits flow between operators."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from dirnet_convert.onnx_export.ir_tools import (
    add_constant,
    constant,
    is_ours,
    make_node,
    new_value,
    remove_unused,
    replace_output,
)
from dirnet_convert.onnx_export.operators import DOMAIN

_WITH_BITS = ("BinaryConv2dAct", "BinaryConv2dAddAct", "StemConv2d", "StemConv2dPRelu")


def fuse_bits(model: ir.Model) -> int:
    """Let convolutions write the bits that are read of their output, and the floats only if read too.

    Returns how many Binarize nodes went.
    """
    fused = 0
    for conv in list(model.graph):
        if not is_ours(conv, "BinaryConv2d", *_WITH_BITS):
            continue
        uses = list(conv.outputs[0].uses())
        binarize = next((use.node for use in uses if is_ours(use.node, "Binarize")), None)
        if binarize is None:
            continue
        floats_read = len(uses) > 1 or conv.outputs[0].is_graph_output()
        _fuse(model.graph, conv, binarize, floats_read)
        fused += 1
    remove_unused(model)
    return fused


def _fuse(graph: ir.Graph, conv: ir.Node, binarize: ir.Node, floats_read: bool) -> None:
    attributes = {name: attribute.value for name, attribute in conv.attributes.items()}
    inputs = list(conv.inputs)
    op_type = conv.op_type
    if op_type == "BinaryConv2d":
        op_type = "BinaryConv2dAct"
        attributes |= {"clip_min": -math.inf, "clip_max": math.inf}
        bias = constant(conv.inputs[3])
        channels = bias.size if bias is not None else int(conv.outputs[0].shape[-1])
        inputs.append(add_constant(graph, f"{conv.name}.slope", np.ones(channels, np.float32)))
    inputs.append(binarize.inputs[1])
    floats, bits = conv.outputs[0], binarize.outputs[0]
    new_bits = new_value(bits, "bits", bits.shape)
    outputs = [new_bits]
    if floats_read:
        outputs.insert(0, new_value(floats, "floats", floats.shape))
    suffix = "WithBits" if floats_read else "ToBits"
    node = make_node(op_type + suffix, inputs, attributes, outputs, like=conv, domain=DOMAIN)
    graph.insert_before(conv, node)
    replace_output(graph, bits, new_bits)
    if floats_read:
        # The old Binarize still reads the floats; it goes with its last reader.
        replace_output(graph, floats, outputs[0])
