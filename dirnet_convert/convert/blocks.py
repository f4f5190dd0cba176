"""Residual blocks: where a branch leaves a value and is added to it again."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from dirnet_convert.binarize.layers import BinaryLayer
from dirnet_convert.convert.facts import is_add, is_layer
from dirnet_convert.convert.trace import ancestors, descendants, holds_tensors
from dirnet_convert.graph import module_of

_PRODUCTS = {"mul", "__mul__", "multiply"}


@dataclass
class Block:
    """A residual block: its add, the layers on the branch that passes binary ones, and the other operand.

    ``whole`` tells whether ``layers`` are all that the branch consists of: inside, it may part and join.
    """

    add: fx.Node
    layers: list[fx.Node]
    shortcut: fx.Node
    whole: bool


def is_binary(student: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether a node calls a binary layer."""
    return isinstance(module_of(student, node), BinaryLayer)


def _holds_binary(student: fx.GraphModule, node: fx.Node) -> bool:
    module = module_of(student, node)
    return module is not None and any(isinstance(part, BinaryLayer) for part in module.modules())


def only_user(node: fx.Node) -> fx.Node | None:
    """Return the node that alone reads ``node``, or None."""
    return next(iter(node.users)) if len(node.users) == 1 else None


class Course:
    """For each value, the one that everything in it came through last (its immediate dominator)."""

    def __init__(self, graph: fx.Graph) -> None:
        self._before: dict[fx.Node, fx.Node | None] = {}
        self._depth: dict[fx.Node, int] = {}
        for node in graph.nodes:
            # Parameters scale values and sizes shape them; neither makes them.
            inputs = [n for n in node.all_input_nodes if n in self._depth and holds_tensors(n)]
            if node.op != "placeholder" and not inputs:
                continue
            before = inputs[0] if inputs else None
            for other in inputs[1:]:
                before = self._meet(before, other)
            self._before[node] = before
            self._depth[node] = 0 if before is None else self._depth[before] + 1

    def _meet(self, left: fx.Node | None, right: fx.Node | None) -> fx.Node | None:
        while left is not right:
            if left is None or right is None:
                return None
            if self._depth[left] >= self._depth[right]:
                left = self._before[left]
            else:
                right = self._before[right]
        return left

    def before(self, node: fx.Node) -> fx.Node | None:
        """Return the value that all of ``node`` came through last, or None at the image."""
        return self._before.get(node)

    def hands_on(self, node: fx.Node) -> bool:
        """Tell whether ``node`` is made of one value, which a gate that was computed from it may multiply."""
        before = self.before(node)
        inputs = [n for n in node.all_input_nodes if n in self._depth and holds_tensors(n)]
        return len(inputs) == 1 or (before in inputs and call_name(node) in _PRODUCTS)


def call_name(node: fx.Node) -> str:
    """Return the name of the function or method that a node calls."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def residual_blocks(student: fx.GraphModule) -> list[Block]:
    """Return the residual blocks that have a binary layer on their branch, in the graph's order."""
    course = Course(student.graph)
    blocks = []
    for node in student.graph.nodes:
        if not is_add(node):
            continue
        left, right = node.all_input_nodes
        branches = (_branch(student, node, m, o, course) for m, o in ((left, right), (right, left)))
        candidates = [block for block in branches if block is not None]
        if candidates:
            blocks.append(max(candidates, key=lambda b: len(b.layers)))
    return blocks


def _branch(
    student: fx.GraphModule, add: fx.Node, main: fx.Node, other: fx.Node, course: Course
) -> Block | None:
    """Return the block whose branch ends in ``main``; None if no layer on it is binary."""
    stop = {other, *other.all_input_nodes}
    frontier = other
    # A shortcut of its own (downsample, pooling, slices) starts where its chain of single inputs does.
    while len(frontier.all_input_nodes) == 1 and not is_add(frontier):
        frontier = frontier.all_input_nodes[0]
        stop.add(frontier)
        if len(frontier.users) > 1:
            break
    layers, whole, binary = [], True, False
    current: fx.Node | None = main
    while current not in stop:
        if current is None or is_add(current):
            return None
        if is_binary(student, current) or is_layer(module_of(student, current)):
            layers.append(current)
        elif _holds_binary(student, current):
            whole, binary = False, True
        before = course.before(current)
        if not course.hands_on(current) and before is not None:
            whole = False
            parted = ancestors(current) & descendants(before)
            binary = binary or any(is_binary(student, node) for node in parted)
        current = before
    if not binary and not any(is_binary(student, layer) for layer in layers):
        return None
    return Block(add, layers[::-1], other, whole)
