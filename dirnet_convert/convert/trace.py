"""The graph of a network: which value feeds which layer, and the shape of each value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

# What a network raises where a value is not the tensor that it expects: a stand-in, or an image of another
# shape.
REJECTIONS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)


class _LayerTracer(fx.Tracer):
    """Traces into containers, and keeps as one call every module of torch.nn, batch norm, or with nothing
    inside."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # Batch norm, stochastic depth and the like read self.training: traced into, it would be frozen.
        return (
            super().is_leaf_module(m, module_qualified_name)
            or isinstance(m, nn.modules.batchnorm._BatchNorm)
            or not any(True for _ in m.children())
        )


@dataclass(frozen=True)
class TraceFailure:
    """Why a network has no graph."""

    cause: str


def trace(network: nn.Module) -> fx.GraphModule | TraceFailure:
    """Return ``network`` as a graph that shares its parameters, or the reason why it has none."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        tracer = _LayerTracer()
        graph = tracer.trace(network)
    # Control flow on values raises TraceError; a Proxy in the wrong place raises whatever its receiver does.
    except (fx.proxy.TraceError, *REJECTIONS) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return TraceFailure(first)
    finally:
        for module, training in modes.items():
            module.training = training
    if sum(node.op == "placeholder" for node in graph.nodes) != 1:
        return TraceFailure("its forward takes more than the images")
    return fx.GraphModule(tracer.root, graph, class_name=type(network).__name__)


def propagate_shapes(graph_module: fx.GraphModule, image: Tensor) -> None:
    """Run the graph once on ``image`` (N, C, H, W) so that ``shape_of`` knows every value."""
    modes = {module: module.training for module in graph_module.modules()}
    graph_module.eval()
    try:
        with torch.no_grad():
            _ShapeRecorder(graph_module).run(image)
    finally:
        for module, training in modes.items():
            module.training = training


class _ShapeRecorder(fx.Interpreter):
    """Runs a graph and notes the shape of every tensor."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        # An error keeps the sentence of the layer that raised it.
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        n.meta["shape"] = tuple(value.shape) if isinstance(value, Tensor) else None
        return value


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """Return the shape of a node's value, or None where it is no single tensor."""
    return node.meta.get("shape")


def module_of(graph_module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls, or None."""
    return graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None


def ancestors(node: fx.Node) -> set[fx.Node]:
    """Return every node whose value goes into ``node``."""
    return _reachable(node, lambda n: n.all_input_nodes)


def descendants(node: fx.Node) -> set[fx.Node]:
    """Return every node that the value of ``node`` goes into."""
    return _reachable(node, lambda n: n.users)


def _reachable(node: fx.Node, step: Callable[[fx.Node], Iterable[fx.Node]]) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    stack = list(step(node))
    while stack:
        current = stack.pop()
        if current not in seen:
            seen.add(current)
            stack.extend(step(current))
    return seen


def with_outputs(graph_module: fx.GraphModule, names: list[str]) -> fx.GraphModule:
    """Return a network with the same parameters that returns (output, (value of each named node, ...))."""
    graph = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    result = graph.graph_copy(graph_module.graph, mapping)
    by_name = {node.name: node for node in graph_module.graph.nodes}
    graph.output((result, tuple(mapping[by_name[name]] for name in names)))
    return fx.GraphModule(graph_module, graph, class_name=f"{graph_module._get_name()}WithRepresentations")
