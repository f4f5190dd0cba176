"""Names of nodes: the path of the PyTorch module that a node comes from, kept through every rewrite."""

from __future__ import annotations

import ast
from collections import Counter

import onnx_ir as ir

from dirnet_convert.onnx_export.operators import DOMAIN

MODULE_KEY = "dirnet.module"
# The module whose output equals dot * scale + bias: the binary layer itself, or its batch normalization.
AFFINE_KEY = "dirnet.affine"
# The activation whose output equals the float output of a binary layer with its epilogue.
OUTPUT_KEY = "dirnet.output"
KEPT_KEYS = (AFFINE_KEY, OUTPUT_KEY)

# The binary layer that a node belongs to, put on it by its stand-in: the same path wherever it is called.
LAYER_KEY = "dirnet.layer"
_SCOPES_KEY = "pkg.torch.onnx.name_scopes"
_REPEAT = "#"


def is_binary_layer(domain: str, op_type: str) -> bool:
    """Tell whether an operator holds the weights of a binary layer."""
    return domain == DOMAIN and (op_type.startswith("BinaryConv2d") or op_type == "BinaryGemm")


def name_nodes(model: ir.Model) -> None:
    """Name every node by its module's path; binary layers have the path alone, then ``path#2``."""
    seen: Counter[str] = Counter()
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES_KEY, "['']"))
        path = node.metadata_props.get(LAYER_KEY) or (scopes[-2] if len(scopes) > 1 else "")
        if is_binary_layer(node.domain, node.op_type):
            name = path
        else:
            name = f"{path}/{node.op_type}" if path else f"{scopes[-1] or 'graph'}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}{_REPEAT}{seen[name]}"
        node.metadata_props.clear()
        node.metadata_props[MODULE_KEY] = path
        if is_binary_layer(node.domain, node.op_type):
            node.metadata_props[AFFINE_KEY] = path


def layer_call(name: str) -> tuple[str, int]:
    """Return the module path and the number of the call (from 1) that a binary layer's node is named for."""
    path, _, repeat = name.rpartition(_REPEAT)
    # A module may have the sign in its own name; calls are numbered from 2 on.
    return (path, int(repeat)) if path and repeat.isdecimal() and int(repeat) > 1 else (name, 1)


def strip_metadata(model: ir.Model) -> None:
    """Drop everything that only the exporter needs: stack traces, documentation, shapes inside the graph."""
    model.metadata_props.clear()
    model.doc_string = None
    graph = model.graph
    graph.metadata_props.clear()
    graph.doc_string = None
    for node in graph:
        kept = {key: node.metadata_props[key] for key in KEPT_KEYS if node.metadata_props.get(key)}
        node.metadata_props.clear()
        node.metadata_props.update(kept)
        node.doc_string = None
    for value in [*graph.inputs, *graph.outputs, *graph.initializers.values()]:
        _strip_value(value)
    for node in graph:
        for value in node.outputs:
            _strip_value(value)


def _strip_value(value: ir.Value) -> None:
    value.metadata_props.clear()
    value.doc_string = None
