"""A PReLU that went into no operator becomes maxima and minima: ONNX Runtime's PRelu goes number by number.

With random signs its branch is mispredicted at every other number: behind a first layer of 16 channels it
took a seventh of ResNet-20's time.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from dirnet_convert.onnx_export.ir_tools import (
    add_constant,
    constant,
    is_op,
    make_node,
    new_value,
    remove_unused,
    replace_output,
)


def expand_prelu(model: ir.Model) -> int:
    """Rewrite every PReLU with a constant, finite slope; return how many there were."""
    expanded = 0
    for node in list(model.graph):
        slope = constant(node.inputs[1]) if is_op(node, "PRelu") else None
        if slope is None or not np.isfinite(slope).all():
            continue
        _expand(model.graph, node, slope)
        expanded += 1
    remove_unused(model)
    return expanded


def _expand(graph: ir.Graph, node: ir.Node, slope: np.ndarray) -> None:
    x, old = node.inputs[0], node.outputs[0]
    made: list[ir.Node] = []

    def add(op_type: str, *inputs: ir.Value) -> ir.Value:
        output = new_value(old, f"{old.name}_{op_type.lower()}", old.shape)
        step = make_node(op_type, inputs, {}, [output], like=node)
        step.name = f"{node.name}/{op_type}"
        made.append(step)
        return output

    # x < 0 ? s * x : x is the larger of x and s * x for 0 < s <= 1. For others, max(x, 0) + s * min(x, 0) has
    # one term of zero, so that nothing rounds. (With s = 0 the first form would make NaN of infinity.)
    if ((slope > 0) & (slope <= 1)).all():
        result = add("Max", x, add("Mul", x, node.inputs[1]))
    else:
        zero = add_constant(graph, f"{node.name}/zero", np.zeros((), np.float32))
        below = add("Mul", add("Min", x, zero), node.inputs[1])
        result = add("Add", add("Max", x, zero), below)
    graph.insert_before(node, made)
    replace_output(graph, old, result)
