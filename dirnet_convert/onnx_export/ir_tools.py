"""Small steps on an onnx_ir graph that every rewrite needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from dirnet_convert.onnx_export.operators import DOMAIN

# Axis permutations between the layouts (N, C, H, W) and (N, H, W, C).
TO_NHWC = (0, 2, 3, 1)
TO_NCHW = (0, 3, 1, 2)


def is_op(node: ir.Node | None, *op_types: str, domain: str = "") -> bool:
    """Tell whether ``node`` is one of the operators ``op_types`` of ``domain``."""
    return node is not None and node.domain == domain and node.op_type in op_types


def is_ours(node: ir.Node | None, *op_types: str) -> bool:
    """Tell whether ``node`` is one of the operators ``op_types`` of ai.dirnet."""
    return is_op(node, *op_types, domain=DOMAIN)


def is_transpose(node: ir.Node | None, perm: Sequence[int]) -> bool:
    """Tell whether ``node`` is the Transpose with the axis permutation ``perm``."""
    return is_op(node, "Transpose") and ints(node, "perm", ()) == tuple(perm)


def ints(node: ir.Node, name: str, default: Sequence[int]) -> tuple[int, ...]:
    """Return an attribute of integers, or ``default`` where the node has none."""
    attribute = node.attributes.get(name)
    return tuple(default) if attribute is None else tuple(attribute.as_ints())


def integer(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute, or ``default`` where the node has none."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return what ``value`` holds in every run, or None where it depends on the input."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def add_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Put ``array`` into the graph as an initializer named ``name``, or ``name_2``... where that is taken."""
    unique, count = name, 1
    while unique in graph.initializers:
        count += 1
        unique = f"{name}_{count}"
    tensor = ir.tensor(np.ascontiguousarray(array), name=unique)
    value = ir.Value(
        name=unique, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def dims(value: ir.Value | None) -> tuple[int | str | None, ...] | None:
    """Return the shape of ``value`` as integers and names, or None where its rank is unknown."""
    if value is None or value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def permuted_shape(value: ir.Value, perm: Sequence[int]) -> ir.Shape | None:
    """Return the shape of ``value`` with its axes in the order ``perm``."""
    return None if value.shape is None else ir.Shape([value.shape[axis] for axis in perm])


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """Return the only node that reads ``value``, once; None where there are more, or it leaves the graph."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def new_value(like: ir.Value, name: str, shape: ir.Shape | None) -> ir.Value:
    """Return a fresh value of the element type of ``like``."""
    return ir.Value(name=name, shape=shape, type=like.type)


def make_node(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: dict[str, object],
    outputs: Sequence[ir.Value],
    *,
    like: ir.Node,
    domain: str = "",
) -> ir.Node:
    """Return a node named as ``like`` and with its metadata, not yet in a graph."""
    made = ir.convenience.convert_attributes(attributes)
    node = ir.Node(domain, op_type, inputs, made, outputs=outputs, name=like.name)
    node.metadata_props.update(like.metadata_props)
    return node


def replace_output(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let every reader of ``old``, the graph's outputs included, read ``new``, which takes over the name."""
    new.name, old.name = old.name, f"{old.name}/replaced"
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def remove_unused(model: ir.Model) -> None:
    """Drop nodes and initializers that nothing reads."""
    common.RemoveUnusedNodesPass()(model)
