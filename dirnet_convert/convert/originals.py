"""What a node of the student's graph took the place of, noted where the graph is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx, nn

_ORIGINAL = "original"
_ORIGINAL_OPERAND = "original_operand"


@dataclass(frozen=True)
class Operand:
    """Names of nodes: a sum took ``before`` in the pretrained network and takes ``after`` now."""

    before: str
    after: str


def note_original(node: fx.Node, original: fx.Node | nn.Module) -> None:
    """Note what gave the value of ``node`` before: another node, or a module called with its arguments."""
    node.meta[_ORIGINAL] = original.name if isinstance(original, fx.Node) else original


def original_of(node: fx.Node) -> str | nn.Module | None:
    """Return the name of the node or the module that ``node`` took the place of, or None."""
    return node.meta.get(_ORIGINAL)


def note_operand(node: fx.Node, before: fx.Node, after: fx.Node) -> None:
    """Note that ``node`` takes ``after`` instead of ``before``."""
    node.meta[_ORIGINAL_OPERAND] = Operand(before.name, after.name)


def operand_of(node: fx.Node) -> Operand | None:
    """Return which operand of ``node`` was changed, or None."""
    return node.meta.get(_ORIGINAL_OPERAND)


def rename_operands(graph: fx.Graph, renamed: Mapping[str, str]) -> None:
    """Follow nodes that got new names after ``note_operand``."""
    for node in graph.nodes:
        operand = operand_of(node)
        if operand is not None:
            before, after = (renamed.get(name, name) for name in (operand.before, operand.after))
            node.meta[_ORIGINAL_OPERAND] = Operand(before, after)
