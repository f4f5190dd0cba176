"""Where each layer stands in a network: what lies before it and behind it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

from torch import fx, nn
from torch.nn import functional

from dirnet_convert.convert.trace import (
    ancestors,
    descendants,
    holds_tensors,
    opaque_modules,
    shape_of,
)
from dirnet_convert.graph import module_of

_ADDS = {"add", "iadd", "add_"}
_ADAPTIVE_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_POOLS = (*_ADAPTIVE_POOLS, nn.AvgPool2d)
_MEANS = {"mean", "amax"}
_POOL_NAMES = {
    *_MEANS,
    functional.adaptive_avg_pool2d.__name__,
    functional.adaptive_max_pool2d.__name__,
    "avg_pool2d",
}
_CONVOLUTIONS_AND_LINEAR = (nn.modules.conv._ConvNd, nn.Linear)


def weighted_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return each convolution and linear layer of ``network`` by name, and what else has a weight matrix."""
    return {name: module for name, module in network.named_modules() if _has_weights(module)}


def _has_weights(module: nn.Module) -> bool:
    return isinstance(module, _CONVOLUTIONS_AND_LINEAR) or any(
        "weight" in name and parameter.dim() >= 2
        for name, parameter in module.named_parameters(recurse=False)
    )


def is_layer(module: nn.Module | None) -> bool:
    """Tell whether ``module`` is a convolution or a linear layer."""
    return isinstance(module, _CONVOLUTIONS_AND_LINEAR)


class Facts:
    """What the policy asks about a layer's place in the network."""

    def __init__(self, network: nn.Module, called: Counter[str]) -> None:
        self.called = called
        """How often each module was called for an image."""
        self.order: list[str] = []
        self.calls: Counter[str] = Counter()
        self.macs: dict[str, int] = {}
        self.first: set[str] = set()
        self.last: set[str] = set()
        self.downsample: set[str] = set()
        self.pooled: set[str] = set()
        self.inside: dict[str, str] = {}
        """Layers of modules that compute in one piece, with that module's class and name."""
        self.untraced: dict[str, str] = {}
        """Layers of modules whose forward could not be followed, with that module's name."""
        self.read: set[str] = set()
        """Layers whose weights are read by something other than a call."""
        self.silent: set[str] = set()
        """Layers of code that could not be followed, which were not called for an image."""
        self.tied = _tied(network)


class TreeFacts(Facts):
    """The module tree alone: the first convolution, and the last one where no linear layer follows."""

    def __init__(self, network: nn.Module, called: Counter[str]) -> None:
        super().__init__(network, called)
        layers = [(name, m) for name, m in network.named_modules() if is_layer(m)]
        self.order = [name for name, _ in layers]
        self.silent = {name for name, _ in layers if called[name] == 0}
        # Another image may take another way, on which a layer at several places of the tree is used at each.
        places = Counter(id(m) for _, m in network.named_modules(remove_duplicate=False))
        self.calls = Counter({name: max(called[name], places[id(m)]) for name, m in layers})
        convolutions = [name for name, m in layers if not isinstance(m, nn.Linear)]
        self.first = set(convolutions[:1])
        if layers and not isinstance(layers[-1][1], nn.Linear):
            self.last = {layers[-1][0]}
        # Without the graph, a strided 1x1 convolution is taken for a shortcut: main paths rarely have them.
        self.downsample = {name for name, m in layers if _may_be_downsample(m)}


class GraphFacts(Facts):
    """The traced graph: what lies before and after each layer."""

    def __init__(self, network: nn.Module, graph_module: fx.GraphModule, called: Counter[str]) -> None:
        super().__init__(network, called)
        self._gm = graph_module
        for node in graph_module.graph.nodes:
            # Asked for its type or its device only, a tensor is not read.
            if node.op == "get_attr" and any(user.target is not getattr for user in node.users):
                self.read.add(str(node.target).rpartition(".")[0])
        self._layers = {n: names for n in graph_module.graph.nodes if (names := self._layers_of(n))}
        for node, names in self._layers.items():
            if not any(n in self._layers for n in ancestors(node)):
                self.first.add(names[0])
            if not any(n in self._layers for n in descendants(node)):
                self.last.add(names[-1])
            if is_layer(module_of(graph_module, node)):
                self._add_layer(node)
            else:
                self._add_parts(node, names)

    def _layers_of(self, node: fx.Node) -> list[str]:
        module = module_of(self._gm, node)
        if module is None:
            return []
        names = [name for name, part in module.named_modules() if is_layer(part)]
        return [f"{node.target}.{name}" if name else str(node.target) for name in names]

    def _add_layer(self, node: fx.Node) -> None:
        name = str(node.target)
        self.calls[name] += 1
        if name not in self.order:
            self.order.append(name)
        layer = self._gm.get_submodule(name)
        self.macs[name] = self.macs.get(name, 0) + _macs(layer, node)
        if self._is_pooled(node):
            self.pooled.add(name)
        if _is_pointwise(layer) and self._is_downsample(node):
            self.downsample.add(name)

    def _add_parts(self, node: fx.Node, names: list[str]) -> None:
        """Note the layers of a module that is one node; where its forward could not be followed, they count
        as in a tree."""
        opaque = str(node.target) in opaque_modules(self._gm)
        kind = type(self._gm.get_submodule(str(node.target))).__name__
        for name in names:
            if name not in self.order:
                self.order.append(name)
            if opaque:
                self.calls[name] = max(self.called[name], self.calls[name] + 1)
                self.untraced[name] = str(node.target)
                if self.called[name] == 0:
                    self.silent.add(name)
                if _may_be_downsample(self._gm.get_submodule(name)):
                    self.downsample.add(name)
            else:
                self.inside[name] = f"{kind} '{node.target}'"

    def _is_downsample(self, node: fx.Node) -> bool:
        """Tell whether a 1x1 convolution is alone on its way to an add whose other operand passes more
        layers, or one that is more than a 1x1 convolution."""
        source, current = node.all_input_nodes[0], node
        while len(current.users) == 1:
            user = next(iter(current.users))
            if is_add(user):
                others = [n for n in user.all_input_nodes if n is not current]
                return any(self._passes_more(other, source) for other in others)
            if user in self._layers or isinstance(module_of(self._gm, user), nn.ReLU):
                return False
            current = user
        return False

    def _passes_more(self, node: fx.Node, source: fx.Node) -> bool:
        # The shortcut may pad and pool before its convolution, so that the common ancestor lies further up.
        before = ancestors(node) | {node}
        root = source
        while root not in before and len(root.all_input_nodes) == 1 and root not in self._layers:
            root = root.all_input_nodes[0]
        passed = {n for n in before & descendants(root) if n in self._layers}
        # 1x1 convolutions side by side are branches of one layer, as MobileOne has them, and none a shortcut.
        return any(
            not _is_pointwise(module_of(self._gm, layer)) or passed & ancestors(layer) for layer in passed
        )

    def _is_pooled(self, node: fx.Node) -> bool:
        """Tell whether pooling, and not a convolution, made the input of ``node`` a single position."""
        current = node.all_input_nodes[0]
        while _is_single(current):
            layer = module_of(self._gm, current)
            if _pools_globally(layer, current):
                return True
            if len(current.all_input_nodes) != 1:
                return False
            before = current.all_input_nodes[0]
            if not _is_single(before):
                return _pools(layer, current)
            current = before
        return False


def _tied(network: nn.Module) -> dict[str, str]:
    """Return each layer whose weight is another's too, with the name of one of those."""
    owners: dict[int, list[str]] = defaultdict(list)
    for name, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            if parameter.dim() >= 2:
                owners[id(parameter)].append(name)
    shared = [names for names in owners.values() if len(names) > 1]
    return {name: names[0] if name != names[0] else names[1] for names in shared for name in names}


def _is_pointwise(layer: nn.Module | None) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)


def _may_be_downsample(layer: nn.Module) -> bool:
    return _is_pointwise(layer) and max(layer.stride) > 1


def _pools(layer: nn.Module | None, node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return isinstance(layer, _POOLS) if layer is not None else name in _POOL_NAMES


def _pools_globally(layer: nn.Module | None, node: fx.Node) -> bool:
    """Tell whether a node makes one position of any image, one that had a single position included."""
    if isinstance(layer, _ADAPTIVE_POOLS):
        return layer.output_size in (1, (1, 1))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if layer is None and name in _MEANS:
        axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        return isinstance(axes, tuple | list) and {axis % 4 for axis in axes if isinstance(axis, int)} == {
            2,
            3,
        }
    size = node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size")
    return layer is None and name.startswith("adaptive_") and size in (1, (1, 1), [1, 1])


def _is_single(node: fx.Node) -> bool:
    shape = shape_of(node)
    return shape is not None and len(shape) == 4 and shape[2:] == (1, 1)


def _macs(layer: nn.Module, node: fx.Node) -> int:
    # Each weight is used once at each output position; a transposed convolution's, at each input position.
    transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
    shape = shape_of(node.all_input_nodes[0] if transposed else node)
    if shape is None:
        return 0
    positions = shape[1:-1] if isinstance(layer, nn.Linear) else shape[2:]
    return layer.weight.numel() * math.prod(positions)


def is_add(node: fx.Node) -> bool:
    """Tell whether a node adds two tensors of the graph; two sizes may be added as well."""
    named = (node.op == "call_function" and getattr(node.target, "__name__", "") in _ADDS) or (
        node.op == "call_method" and node.target in _ADDS
    )
    return named and len(node.all_input_nodes) == 2 and all(map(holds_tensors, node.all_input_nodes))
