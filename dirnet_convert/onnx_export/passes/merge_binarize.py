"""Equal Binarize nodes of one value, and equal transposes of one value, become one."""

from __future__ import annotations

import onnx_ir as ir

from dirnet_convert.onnx_export.ir_tools import constant, ints, is_op, is_ours, remove_unused


def merge_binarize(model: ir.Model) -> int:
    """Let the first of equal Binarize or Transpose nodes serve the readers of all; return how many went."""
    first: dict[tuple, ir.Node] = {}
    merged = 0
    for node in list(model.graph):
        key = _key(node)
        if key is None:
            continue
        twin = first.setdefault(key, node)
        if twin is not node and not node.outputs[0].is_graph_output():
            ir.convenience.replace_all_uses_with(node.outputs[0], twin.outputs[0])
            merged += 1
    remove_unused(model)
    return merged


def _key(node: ir.Node) -> tuple | None:
    if is_op(node, "Transpose"):
        return ("Transpose", node.inputs[0], ints(node, "perm", ()))
    if is_ours(node, "Binarize"):
        threshold = constant(node.inputs[1])
        # By value: two layers learn thresholds of their own, which are equal where both start at zero.
        same = node.inputs[1] if threshold is None else threshold.tobytes()
        return ("Binarize", node.inputs[0], same)
    return None
