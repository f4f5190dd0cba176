"""The graph of a network: which value feeds which layer, and the shape of each value."""

from __future__ import annotations

import itertools
import keyword
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from dirnet_convert.convert.tracer import REJECTIONS, UNTRACEABLE, ExampleTracer, cause_of
from dirnet_convert.errors import DirnetError
from dirnet_convert.graph import counted_calls
from dirnet_convert.modes import evaluating

_OPAQUE = "opaque"
# Of grey and of coloured images.
_COMMON_CHANNELS = (1, 3)
_COMMON_SIZES = (32, 64, 96, 224, 299, 384)


@dataclass(frozen=True)
class TraceFailure:
    """Why a network has no graph."""

    cause: str


def trace(network: nn.Module, image: Tensor) -> fx.GraphModule | TraceFailure:
    """Return ``network`` as a graph for images like ``image`` (1, C, H, W), or the reason why it has none.

    A graph is taken only where it gives what the network gives, for another number of images too.
    """
    noise = _noise_like(image)
    tracer = ExampleTracer(torch.cat([noise, noise]))
    try:
        with evaluating(network):
            graph = _without_tracer(tracer.trace(network))
            graph_module = fx.GraphModule(tracer.root, graph, class_name=type(network).__name__)
            if not _give_the_same(graph_module, network, noise):
                return TraceFailure("its graph gives other values than the network")
    except UNTRACEABLE as error:
        return TraceFailure(cause_of(error))
    except SyntaxError:
        # torch.fx writes the graph as Python, in which it names modules as attributes.
        word = next(filter(keyword.iskeyword, _words(network)), "")
        return TraceFailure(f"a module is called '{word}', a word of Python, which no graph can name")
    graph_module.meta[_OPAQUE] = tracer.opaque
    return graph_module


def _words(network: nn.Module) -> Iterator[str]:
    for name, _ in network.named_modules():
        yield from name.split(".")


def serves(graph_module: fx.GraphModule, network: nn.Module, image: Tensor) -> bool:
    """Tell whether ``graph_module`` gives what ``network`` gives for images like ``image`` (1, C, H, W)."""
    try:
        with evaluating(network), evaluating(graph_module):
            return _give_the_same(graph_module, network, _noise_like(image))
    except REJECTIONS:
        return False


def opaque_modules(graph_module: fx.GraphModule) -> dict[str, str]:
    """Return the modules that stay one node since their forward cannot be followed, with the cause."""
    return graph_module.meta[_OPAQUE]


def _without_tracer(graph: fx.Graph) -> fx.Graph:
    """Return a copy that does not name the tracer, which a copy of the network would ask for again."""
    plain = fx.Graph()
    plain.output(plain.graph_copy(graph, {}))
    return plain


def _noise_like(image: Tensor) -> Tensor:
    return torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image)


@torch.no_grad()
def _give_the_same(graph_module: fx.GraphModule, network: nn.Module, images: Tensor) -> bool:
    return _alike(graph_module(images), network(images))


def _alike(left: object, right: object) -> bool:
    # One operation may take another way for another layout, with the last bits different.
    ours, theirs = pytree.tree_leaves(left), pytree.tree_leaves(right)
    return len(ours) == len(theirs) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
        if isinstance(a, Tensor) and isinstance(b, Tensor)
        else a == b
        for a, b in zip(ours, theirs, strict=True)
    )


def answer_of(network: nn.Module, image: Tensor, name: str = "The network") -> Any:
    """Return what ``network``, called ``name`` to a person, answers an image (1, C, H, W) in eval mode.

    Raises:
        DirnetError: the network does not take such an image.
    """
    try:
        with evaluating(network), torch.no_grad():
            return network(image)
    except Exception as error:  # a person's own code may raise anything, and is told what
        raise DirnetError(f"{name} {_rejection_of(network, image, error)}") from error


def _rejection_of(network: nn.Module, image: Tensor, error: Exception) -> str:
    """Say what is wrong with an image (1, C, H, W) for which ``network`` raised ``error``, and what to do."""
    shape = "x".join(str(size) for size in image.shape[1:])
    for channels in _COMMON_CHANNELS:
        if _takes(network, image[:, :1].expand(-1, channels, -1, -1)):
            takes = "1 channel" if channels == 1 else f"{channels} channels"
            return (
                f"takes images of {takes}, and these have {image.shape[1]}; choose other images or another "
                "network."
            )
    for size, channels in itertools.product(_COMMON_SIZES, (image.shape[1], *_COMMON_CHANNELS)):
        if _takes(network, image[:, :1, :1, :1].expand(-1, channels, size, size)):
            other = "" if channels == image.shape[1] else "other images or "
            return (
                f"takes images of {channels}x{size}x{size}, and no images of {shape} ({cause_of(error)}); "
                f"choose {other}another --image-size."
            )
    return (
        f"does not take images of {shape} ({type(error).__name__}: {cause_of(error)}), nor of other common "
        "sizes; its forward() must take the images alone."
    )


def _takes(network: nn.Module, image: Tensor) -> bool:
    try:
        with evaluating(network), torch.no_grad():
            network(image)
    except Exception:  # whatever a person's own code raises, it does not take this image
        return False
    return True


def count_calls(network: nn.Module, image: Tensor) -> Counter[str]:
    """Return how often each module of ``network`` is called, in eval mode, for an image (1, C, H, W).

    Raises:
        DirnetError: the network does not take such an image.
    """
    with counted_calls(network) as calls:
        answer_of(network, image)
    return calls


def propagate_shapes(graph_module: fx.GraphModule, image: Tensor) -> None:
    """Run the graph once on ``image`` (N, C, H, W) so that ``shape_of`` knows every value."""
    with evaluating(graph_module), torch.no_grad():
        _ShapeRecorder(graph_module).run(image)


class _ShapeRecorder(fx.Interpreter):
    """Runs a graph and notes the shape of every tensor."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        # An error keeps the sentence of the layer that raised it.
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        n.meta["shape"] = tuple(value.shape) if isinstance(value, Tensor) else None
        n.meta["tensors"] = any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))
        return value


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """Return the shape of a node's value, or None where it is no single tensor."""
    return node.meta.get("shape")


def holds_tensors(node: fx.Node) -> bool:
    """Tell whether a node's value is a tensor or a container of tensors, and not a size."""
    return node.meta.get("tensors", shape_of(node) is not None)


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
