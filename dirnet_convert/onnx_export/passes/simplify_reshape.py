"""A Reshape whose target is computed from the batch size gets a constant target."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from dirnet_convert.onnx_export.ir_tools import (
    add_constant,
    constant,
    dims,
    is_op,
    make_node,
    new_value,
    remove_unused,
    replace_output,
)


def simplify_reshape(model: ir.Model) -> int:
    """Write -1 for the one axis that is not known, where all others are; return how many were simplified."""
    simplified = 0
    for node in list(model.graph):
        if not is_op(node, "Reshape") or constant(node.inputs[1]) is not None:
            continue
        shape = dims(node.outputs[0])
        if shape is None or sum(not isinstance(dim, int) for dim in shape) != 1 or 0 in shape:
            continue
        target = np.array([dim if isinstance(dim, int) else -1 for dim in shape], np.int64)
        target_value = add_constant(model.graph, f"{node.name}/shape", target)
        output = new_value(node.outputs[0], "reshaped", node.outputs[0].shape)
        made = make_node("Reshape", [node.inputs[0], target_value], {"allowzero": 0}, [output], like=node)
        model.graph.insert_before(node, made)
        replace_output(model.graph, node.outputs[0], output)
        simplified += 1
    remove_unused(model)
    return simplified
