"""Which layers are binarized and which are kept, with the reason for each."""

from __future__ import annotations

import enum
import fnmatch
import math
from collections import Counter
from dataclasses import dataclass

from torch import fx, nn
from torch.nn import functional

from dirnet_convert.convert.trace import ancestors, descendants, module_of, shape_of
from dirnet_convert.errors import UsageError, nearest_name
from dirnet_convert.recipe import ConvertOptions

_ADDS = {"add", "iadd", "add_"}


class Decision(enum.StrEnum):
    """What happens to a layer."""

    BINARIZE = "binarize"
    KEEP = "keep"


@dataclass(frozen=True)
class LayerPlan:
    """A layer with weights: what is done with it, why, and what would change that.

    ``macs`` counts multiply-adds for one image, 0 where the network has no graph.
    """

    name: str
    kind: str
    shape: str
    weights: int
    macs: int
    decision: Decision
    reason: str
    remedy: str = ""


def plan_layers(
    network: nn.Module, graph_module: fx.GraphModule | None, options: ConvertOptions
) -> tuple[LayerPlan, ...]:
    """Decide for every layer with weights of ``network``, in the order of execution where there is a graph.

    Raises:
        UsageError: a glob of --keep or --binarize matches no layer, or one of --binarize only such as cannot
            be binarized.
    """
    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear)
    }
    _check_globs((*options.keep, *options.binarize), layers)
    facts = _GraphFacts(graph_module) if graph_module is not None else _TreeFacts(network)
    order = facts.order + [name for name in layers if name not in facts.order]
    plan = tuple(_plan(name, layers[name], facts, options) for name in order if name in layers)
    _check_asked(options, plan)
    return plan


def _check_globs(globs: tuple[str, ...], layers: dict[str, nn.Module]) -> None:
    for glob in globs:
        if not any(fnmatch.fnmatchcase(name, glob) for name in layers):
            raise UsageError(
                f"No layer matches '{glob}'{nearest_name(glob, layers)}; 'dirnet inspect MODEL' lists their "
                "names."
            )


def _check_asked(options: ConvertOptions, plan: tuple[LayerPlan, ...]) -> None:
    # A wide glob may match some layers in vain, and --keep wins over --binarize.
    possible = {
        layer.name
        for layer in plan
        if layer.decision is Decision.BINARIZE
        or any(fnmatch.fnmatchcase(layer.name, glob) for glob in options.keep)
    }
    for glob in options.binarize:
        matched = [layer for layer in plan if fnmatch.fnmatchcase(layer.name, glob)]
        if matched and not any(layer.name in possible for layer in matched):
            raise UsageError(
                f"--binarize '{glob}' asks for {matched[0].name}, which cannot be binarized: "
                f"{matched[0].reason}."
            )


def _plan(name: str, layer: nn.Module, facts: _Facts, options: ConvertOptions) -> LayerPlan:
    decision, reason, remedy = _decide(name, layer, facts, options)
    return LayerPlan(
        name=name,
        kind=type(layer).__name__,
        shape=_describe(layer),
        weights=layer.weight.numel(),
        macs=facts.macs.get(name, 0),
        decision=decision,
        reason=reason,
        remedy=remedy,
    )


def _decide(name: str, layer: nn.Module, facts: _Facts, options: ConvertOptions) -> tuple[Decision, str, str]:
    keep, binarize = Decision.KEEP, Decision.BINARIZE
    ask = f"--binarize '{name}'"
    if isinstance(layer, nn.Linear):
        return keep, "linear layer: only convolutions are binarized", ""
    if type(layer) is not nn.Conv2d:
        return keep, f"{type(layer).__name__} is not a plain Conv2d: it computes something else", ""
    if layer.padding_mode != "zeros":
        return keep, f"pads with '{layer.padding_mode}'; a binary convolution pads with zeros", ""
    if facts.calls[name] > 1:
        return keep, f"used {facts.calls[name]} times: one threshold cannot serve several inputs", ""
    if facts.calls[name] == 0:
        return keep, "not used by the forward pass", ""
    if any(fnmatch.fnmatchcase(name, glob) for glob in options.keep):
        return keep, "asked for with --keep", ""
    if any(fnmatch.fnmatchcase(name, glob) for glob in options.binarize):
        return binarize, "asked for with --binarize", ""
    if name in facts.first:
        return keep, "first layer: it sees the image itself", ask
    if name in facts.last:
        return keep, "last layer: it gives the answer", ask
    if layer.groups > 1:
        word = "depthwise" if layer.groups == layer.in_channels else f"grouped ({layer.groups} groups)"
        taps = layer.weight[0].numel()
        return keep, f"{word}: sums of {taps} signs say too little", ask
    if name in facts.downsample:
        return keep, "1x1 downsample of a shortcut: few operations, and the only float path", ask
    if name in facts.pooled:
        return keep, "works on pooled 1x1 values (a gate): hardly any operations", ask
    return binarize, "inside the network", f"--keep '{name}'"


def _describe(layer: nn.Module) -> str:
    if isinstance(layer, nn.Linear):
        return f"{layer.in_features} -> {layer.out_features}"
    kernel = "x".join(str(k) for k in layer.kernel_size)
    stride = "" if set(layer.stride) == {1} else f" /{layer.stride[0]}"
    groups = "" if layer.groups == 1 else f" g{layer.groups}"
    return f"{layer.in_channels} -> {layer.out_channels}, {kernel}{stride}{groups}"


class _Facts:
    """What the policy asks about a layer's place in the network."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.calls: Counter[str] = Counter()
        self.macs: dict[str, int] = {}
        self.first: set[str] = set()
        self.last: set[str] = set()
        self.downsample: set[str] = set()
        self.pooled: set[str] = set()


class _TreeFacts(_Facts):
    """The module tree alone: the first convolution, and the last one where no linear layer follows."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        layers = [
            (name, m)
            for name, m in network.named_modules()
            if isinstance(m, nn.modules.conv._ConvNd | nn.Linear)
        ]
        self.order = [name for name, _ in layers]
        # A layer that stands at several places of the tree is used at each.
        places = Counter(id(m) for _, m in network.named_modules(remove_duplicate=False))
        self.calls = Counter({name: places[id(m)] for name, m in layers})
        convolutions = [name for name, m in layers if not isinstance(m, nn.Linear)]
        self.first = set(convolutions[:1])
        if layers and not isinstance(layers[-1][1], nn.Linear):
            self.last = {layers[-1][0]}
        # Without the graph, a strided 1x1 convolution is taken for a shortcut: main paths rarely have them.
        self.downsample = {
            name
            for name, m in layers
            if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and max(m.stride) > 1
        }


class _GraphFacts(_Facts):
    """The traced graph: what lies before and after each layer."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__()
        self._gm = graph_module
        nodes = [n for n in graph_module.graph.nodes if self._is_layer(n)]
        for node in nodes:
            name = str(node.target)
            self.calls[name] += 1
            if name not in self.order:
                self.order.append(name)
            layer = module_of(graph_module, node)
            self.macs[name] = self.macs.get(name, 0) + _macs(layer, node)
            if not any(self._is_layer(n) for n in ancestors(node)):
                self.first.add(name)
            if not any(self._is_layer(n) for n in descendants(node)):
                self.last.add(name)
            if self._is_pooled(node):
                self.pooled.add(name)
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and self._is_downsample(node):
                self.downsample.add(name)

    def _is_layer(self, node: fx.Node) -> bool:
        return isinstance(module_of(self._gm, node), nn.modules.conv._ConvNd | nn.Linear)

    def _is_downsample(self, node: fx.Node) -> bool:
        """Tell whether a 1x1 convolution is alone on its way to an add whose other operand passes more
        layers."""
        source, current = node.all_input_nodes[0], node
        while len(current.users) == 1:
            user = next(iter(current.users))
            if is_add(user):
                others = [n for n in user.all_input_nodes if n is not current]
                return any(self._passes_layer(other, source) for other in others)
            if self._is_layer(user) or isinstance(module_of(self._gm, user), nn.ReLU):
                return False
            current = user
        return False

    def _passes_layer(self, node: fx.Node, source: fx.Node) -> bool:
        # The shortcut may pad and pool before its convolution, so that the common ancestor lies further up.
        before = ancestors(node) | {node}
        root = source
        while root not in before and len(root.all_input_nodes) == 1 and not self._is_layer(root):
            root = root.all_input_nodes[0]
        return any(self._is_layer(n) for n in before & descendants(root))

    def _is_pooled(self, node: fx.Node) -> bool:
        """Tell whether pooling, and not a convolution, made the input of ``node`` a single position."""
        current = node.all_input_nodes[0]
        while _is_single(current):
            if len(current.all_input_nodes) != 1:
                return False
            before = current.all_input_nodes[0]
            if not _is_single(before):
                return _pools(module_of(self._gm, current), current)
            current = before
        return False


_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d)
_POOL_NAMES = {
    functional.adaptive_avg_pool2d.__name__,
    functional.adaptive_max_pool2d.__name__,
    "avg_pool2d",
    "mean",
    "amax",
}


def _pools(layer: nn.Module | None, node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return isinstance(layer, _POOLS) if layer is not None else name in _POOL_NAMES


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
    """Tell whether a node adds two values of the graph."""
    named = (node.op == "call_function" and getattr(node.target, "__name__", "") in _ADDS) or (
        node.op == "call_method" and node.target in _ADDS
    )
    return named and len(node.all_input_nodes) == 2
