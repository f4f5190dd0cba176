"""Which part of the graph runs in NHWC: the choice with the least work in transposes, and the rewrite to it.

Binary operators want (N, H, W, C), float convolutions (N, C, H, W), and many operators can do either. Every
such operator gets a layout so that the sum over all transposed tensors of their size is the least: a minimum
cut, where the source's side is NHWC. One transpose of a value serves all who read it, hence the two helper
vertices of each value: "someone wants it in NHWC" and "all want it in NHWC".
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import onnx_ir as ir

from dirnet_convert.onnx_export.ir_tools import (
    TO_NCHW,
    TO_NHWC,
    dims,
    is_op,
    is_transpose,
    new_value,
    permuted_shape,
    remove_unused,
)
from dirnet_convert.onnx_export.passes.layout_rule import Rewriter, Rule
from dirnet_convert.onnx_export.passes.layout_rules import find_rule
from dirnet_convert.onnx_export.passes.min_cut import INFINITE, CutGraph

_NHWC, _AS_IS = "NHWC", "as it stands"
# Value costs are scaled so that a preference of 1 only decides between equals.
_UNIT = 4
_UNKNOWN_SIZE = 1 << 16


@dataclass(frozen=True)
class RemainingTranspose:
    """A transpose that is left in the graph, and the operators on its two sides."""

    name: str
    shape: tuple[int | str | None, ...]
    after: str
    before: tuple[str, ...]


def remaining_transposes(model: ir.Model) -> tuple[RemainingTranspose, ...]:
    """Return the transposes between layouts that are left in the graph, in its order."""
    found = []
    for node in model.graph:
        if is_transpose(node, TO_NHWC) or is_transpose(node, TO_NCHW):
            producer = node.inputs[0].producer()
            after = "input" if producer is None else producer.op_type
            before = tuple(use.node.op_type for use in node.outputs[0].uses())
            found.append(RemainingTranspose(node.name or "", dims(node.inputs[0]) or (), after, before))
    return tuple(found)


def choose_layout(model: ir.Model) -> int:
    """Rewrite every operator that is better off in NHWC; return how many were rewritten."""
    if not any(is_transpose(node, TO_NHWC) or is_transpose(node, TO_NCHW) for node in model.graph):
        return 0
    rules = {node: rule for node in model.graph if (rule := find_rule(node)) is not None}
    chosen = _choose(model, rules)
    _Rewrite(model.graph, {node: rules[node] for node in rules if node in chosen}).run()
    remove_unused(model)
    return len(chosen)


def _choose(model: ir.Model, rules: dict[ir.Node, Rule]) -> set[ir.Node]:
    graph = CutGraph(_NHWC, _AS_IS)
    for node in model.graph:
        for value in node.outputs:
            _add_value(graph, value, _side_of_producer(node, value, rules), rules)
        if node in rules:
            graph.add(node, _AS_IS, rules[node].extra_cost * _UNIT + _preference(node, rules))
    for value in model.graph.inputs:
        _add_value(graph, value, _AS_IS, rules)
    as_is = graph.sink_side()
    return {node for node in rules if node not in as_is}


def _preference(node: ir.Node, rules: dict[ir.Node, Rule]) -> int:
    # ONNX Runtime runs an activation inside the float convolution that it follows.
    producer = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    return int(is_op(producer, "Conv") and producer not in rules)


def _side_of_producer(node: ir.Node, value: ir.Value, rules: dict[ir.Node, Rule]) -> Hashable:
    if is_transpose(node, TO_NCHW):
        return _NHWC
    return node if node in rules and value in rules[node].outputs else _AS_IS


def _side_of_reader(node: ir.Node, value: ir.Value, rules: dict[ir.Node, Rule]) -> Hashable:
    if is_transpose(node, TO_NHWC):
        return _NHWC
    return node if node in rules and value in rules[node].inputs else _AS_IS


def _add_value(graph: CutGraph, value: ir.Value, producer: Hashable, rules: dict[ir.Node, Rule]) -> None:
    shape = dims(value)
    if shape is not None and len(shape) != 4:
        return
    readers = [_side_of_reader(use.node, value, rules) for use in value.uses()]
    if value.is_graph_output():
        readers.append(_AS_IS)
    cost = _UNIT * _size(shape)
    # The producer leaves it as it stands and someone wants NHWC: one transpose.
    graph.add(("some", value), producer, cost)
    # The producer makes NHWC and someone wants it as it stands: one transpose.
    graph.add(producer, ("all", value), cost)
    for reader in readers:
        graph.add(reader, ("some", value), INFINITE)
        graph.add(("all", value), reader, INFINITE)


def _size(shape: tuple[int | str | None, ...] | None) -> int:
    if shape is None or not all(isinstance(dim, int) for dim in shape[1:]):
        return _UNKNOWN_SIZE
    _, channels, height, width = shape
    # With one pixel a transpose moves nothing.
    return 1 if height * width == 1 else max(1, channels * height * width)


class _Rewrite(Rewriter):
    """Walks the graph in its order and knows each value in the layouts that it is available in."""

    def __init__(self, graph: ir.Graph, chosen: dict[ir.Node, Rule]) -> None:
        super().__init__(graph)
        self._chosen = chosen
        self._nhwc: dict[ir.Value, ir.Value] = {}
        self._as_is: dict[ir.Value, ir.Value] = {}
        self._moved: set[ir.Value] = {value for rule in chosen.values() for value in rule.outputs}

    def run(self) -> None:
        for node in list(self.graph):
            self.position = node
            if is_transpose(node, TO_NCHW):
                self._nhwc[node.outputs[0]] = node.inputs[0]
            elif is_transpose(node, TO_NHWC):
                self._enter(node)
            elif node in self._chosen:
                self._chosen[node].emit(self)
            else:
                for index, value in enumerate(node.inputs):
                    if value in self._moved:
                        node.replace_input_with(index, self._back(value))
        self.position = None
        for index, value in enumerate(list(self.graph.outputs)):
            if value in self._moved:
                self._leave(index, value)

    def nhwc(self, value: ir.Value) -> ir.Value:
        if value not in self._nhwc:
            made = new_value(value, f"{value.name}_nhwc", permuted_shape(value, TO_NHWC))
            self._insert_transpose(value, TO_NHWC, made)
            self._nhwc[value] = made
        return self._nhwc[value]

    def define(self, value: ir.Value, nhwc: ir.Value) -> None:
        self._nhwc[value] = nhwc

    def _enter(self, transpose: ir.Node) -> None:
        value, entered = transpose.inputs[0], transpose.outputs[0]
        if entered.is_graph_output():
            if value in self._moved:
                transpose.replace_input_with(0, self._back(value))
        elif value in self._nhwc:
            ir.convenience.replace_all_uses_with(entered, self._nhwc[value])
        else:
            self._nhwc[value] = entered

    def _back(self, value: ir.Value) -> ir.Value:
        if value not in self._as_is:
            made = new_value(value, f"{value.name}_nchw", value.shape)
            self._insert_transpose(self._nhwc[value], TO_NCHW, made)
            self._as_is[value] = made
        return self._as_is[value]

    def _leave(self, index: int, value: ir.Value) -> None:
        name = value.name
        back = self._back(value)
        value.name, back.name = f"{name}/replaced", name
        self.graph.outputs[index] = back

    def _insert_transpose(self, source: ir.Value, perm: tuple[int, ...], made: ir.Value) -> None:
        self.insert("Transpose", [source], {"perm": perm}, [made])
