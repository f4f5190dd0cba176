"""Binarize(MaxPool(x)) becomes BinaryMaxPool2d(Binarize(x)): the pooling then moves bits, 1/32 of the floats.

Right because x -> (x >= t) never falls when x rises, so that it commutes with the maximum; a padded tap is
left out by both.
"""

from __future__ import annotations

import onnx_ir as ir

from dirnet_convert.onnx_export.ir_tools import (
    TO_NHWC,
    dims,
    integer,
    ints,
    is_op,
    is_ours,
    is_transpose,
    make_node,
    new_value,
    permuted_shape,
    remove_unused,
    replace_output,
)
from dirnet_convert.onnx_export.operators import DOMAIN, word_count


def hoist_binarize(model: ir.Model) -> int:
    """Move each Binarize in front of the max pooling that only Binarize nodes read; return how many."""
    moved = 0
    for pool in list(model.graph):
        if not _is_plain_max_pool(pool):
            continue
        transposes = [use.node for use in pool.outputs[0].uses()]
        readers = [use.node for transpose in transposes for use in transpose.outputs[0].uses()]
        if (
            not readers
            or pool.outputs[0].is_graph_output()
            or any(node.outputs[0].is_graph_output() for node in transposes)
            or not all(is_transpose(node, TO_NHWC) for node in transposes)
            or not all(is_ours(node, "Binarize") for node in readers)
        ):
            continue
        for binarize in readers:
            _hoist(model.graph, pool, binarize)
            moved += 1
    remove_unused(model)
    return moved


def _is_plain_max_pool(node: ir.Node) -> bool:
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    indices_used = len(node.outputs) > 1 and bool(node.outputs[1].uses())
    return (
        is_op(node, "MaxPool")
        and len(ints(node, "kernel_shape", ())) == 2
        and auto_pad == "NOTSET"
        and not indices_used
    )


def _hoist(graph: ir.Graph, pool: ir.Node, binarize: ir.Node) -> None:
    x, channels = pool.inputs[0], integer(binarize, "channels", 0)
    nhwc = new_value(x, f"{x.name}_nhwc", permuted_shape(x, TO_NHWC))
    transpose = make_node("Transpose", [x], {"perm": TO_NHWC}, [nhwc], like=pool)
    transpose.name = f"{binarize.name}/Transpose"
    shape = dims(nhwc)
    bits_shape = None if shape is None else ir.Shape([*shape[:-1], word_count(channels)])
    bits = new_value(binarize.outputs[0], f"{x.name}_bits", bits_shape)
    earlier = make_node(
        "Binarize", [nhwc, binarize.inputs[1]], {"channels": channels}, [bits], like=binarize, domain=DOMAIN
    )
    pooled = new_value(binarize.outputs[0], "pooled", binarize.outputs[0].shape)
    attributes = {
        "channels": channels,
        "kernel_shape": ints(pool, "kernel_shape", ()),
        "strides": ints(pool, "strides", (1, 1)),
        "pads": ints(pool, "pads", (0, 0, 0, 0)),
        "dilations": ints(pool, "dilations", (1, 1)),
        "ceil_mode": integer(pool, "ceil_mode", 0),
    }
    bit_pool = make_node("BinaryMaxPool2d", [bits], attributes, [pooled], like=pool, domain=DOMAIN)
    graph.insert_before(binarize, [transpose, earlier, bit_pool])
    replace_output(graph, binarize.outputs[0], pooled)
