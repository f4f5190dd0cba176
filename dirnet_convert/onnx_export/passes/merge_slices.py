"""Slices one after the other along different axes become one, which copies once."""

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
    sole_consumer,
)

_INPUTS = ("starts", "ends", "axes", "steps")


def merge_slices(model: ir.Model) -> int:
    """Merge each Slice into the one in front of it that it alone reads; return how many went."""
    merged = 0
    for node in list(model.graph):
        source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        if (
            not is_op(node, "Slice")
            or not is_op(source, "Slice")
            or sole_consumer(node.inputs[0]) is not node
        ):
            continue
        first, second = _bounds(source), _bounds(node)
        if first is None or second is None or set(first["axes"]) & set(second["axes"]):
            continue
        constants = [
            add_constant(model.graph, f"{node.name}/{name}", np.concatenate([first[name], second[name]]))
            for name in _INPUTS
        ]
        output = new_value(node.outputs[0], "sliced", node.outputs[0].shape)
        made = make_node("Slice", [source.inputs[0], *constants], {}, [output], like=node)
        model.graph.insert_before(node, made)
        replace_output(model.graph, node.outputs[0], output)
        # What follows may be a third one, which reads the merged one now.
        model.graph.remove(node, safe=True)
        merged += 1
    remove_unused(model)
    return merged


def _bounds(node: ir.Node) -> dict[str, np.ndarray] | None:
    arrays = [constant(value) for value in node.inputs[1:]]
    # Negative axes would have to be compared with the rank, and PyTorch writes none.
    if len(arrays) != 4 or any(array is None for array in arrays) or np.any(arrays[2] < 0):
        return None
    return {name: array.astype(np.int64) for name, array in zip(_INPUTS, arrays, strict=True)}
