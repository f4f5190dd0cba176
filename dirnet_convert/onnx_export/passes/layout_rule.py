"""What a rule for one operator in NHWC is made of, and what it works with."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from dirnet_convert.onnx_export.ir_tools import TO_NHWC, add_constant, dims, new_value, permuted_shape


class Rewriter(abc.ABC):
    """What a rule works with: the NHWC forms of values, and a place to put new nodes."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.position: ir.Node | None = None

    @abc.abstractmethod
    def nhwc(self, value: ir.Value) -> ir.Value:
        """Return ``value`` (N, C, H, W) in the layout (N, H, W, C), transposed here if need be."""

    @abc.abstractmethod
    def define(self, value: ir.Value, nhwc: ir.Value) -> None:
        """State that ``nhwc`` is ``value`` in the layout (N, H, W, C)."""

    def insert(
        self, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict, outputs: Sequence[ir.Value]
    ) -> None:
        """Put a node in front of the one being rewritten, named for it, or at the end of the graph."""
        made = ir.convenience.convert_attributes(attributes)
        node = ir.Node("", op_type, inputs, made, outputs=outputs)
        if self.position is None:
            node.name = f"{op_type}/{outputs[0].name}"
            self.graph.append(node)
            return
        same = op_type == self.position.op_type
        node.name = self.position.name if same else f"{self.position.name}/{op_type}"
        node.metadata_props.update(self.position.metadata_props)
        self.graph.insert_before(self.position, node)

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """Return ``array`` as an initializer."""
        return add_constant(self.graph, name, array)

    def output(self, value: ir.Value) -> ir.Value:
        """Return a new value that stands for ``value`` in the layout (N, H, W, C)."""
        made = new_value(value, f"{value.name}_nhwc", permuted_shape(value, TO_NHWC))
        self.define(value, made)
        return made


@dataclass(frozen=True)
class Rule:
    """One operator in NHWC: the values that it reads and writes in that layout, and how it is written.

    ``extra_cost`` counts moved elements, as a transpose of them would.
    """

    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    emit: Callable[[Rewriter], None]
    extra_cost: int = 0


def rank(value: ir.Value | None) -> int | None:
    """Return the number of axes, or None where it is unknown."""
    shape = dims(value)
    return None if shape is None else len(shape)


def attributes_of(node: ir.Node) -> dict:
    """Return the attributes of ``node`` as plain values."""
    return {name: attribute.value for name, attribute in node.attributes.items()}


def take_over(to: Rewriter, old: ir.Value, new: ir.Value) -> None:
    """Let ``new``, which is the same in both layouts, be read in place of ``old``."""
    new.name, old.name = old.name, f"{old.name}/replaced"
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
