"""Which layers are binarized and which are kept, with the reason for each."""

from __future__ import annotations

import enum
import fnmatch
from collections import Counter
from dataclasses import dataclass

from torch import fx, nn

from dirnet_convert.binarize.twins import Likeness, likeness
from dirnet_convert.convert.cost import slowness
from dirnet_convert.convert.facts import Facts, GraphFacts, TreeFacts, is_layer, weighted_layers
from dirnet_convert.errors import UsageError, nearest_name
from dirnet_convert.recipe import ConvertOptions


class Decision(enum.StrEnum):
    """What happens to a layer."""

    BINARIZE = "binarize"
    KEEP = "keep"


@dataclass(frozen=True)
class LayerPlan:
    """A layer with weights: what is done with it, why, and what would change that.

    ``macs`` counts multiply-adds for one image, 0 where the network has no graph. ``remedy`` is empty where
    nothing would change it. ``caution`` says what speaks against the decision here.
    """

    name: str
    kind: str
    shape: str
    weights: int
    macs: int
    decision: Decision
    reason: str
    remedy: str = ""
    caution: str = ""


def plan_layers(
    network: nn.Module, graph_module: fx.GraphModule | None, options: ConvertOptions, called: Counter[str]
) -> tuple[LayerPlan, ...]:
    """Decide for every layer with weights of ``network``, in the order of execution where there is a graph.

    ``called`` says how often each module was called for an image, for code that could not be followed.

    Raises:
        UsageError: a glob of --keep or --binarize matches no layer, or one of --binarize only such as cannot
            be binarized.
    """
    layers = weighted_layers(network)
    _check_globs((*options.keep, *options.binarize), layers)
    graph = graph_module is not None
    facts = GraphFacts(network, graph_module, called) if graph else TreeFacts(network, called)
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


def _plan(name: str, layer: nn.Module, facts: Facts, options: ConvertOptions) -> LayerPlan:
    decision, reason, remedy = _decide(name, layer, facts, options)
    macs = facts.macs.get(name, 0)
    return LayerPlan(
        name=name,
        kind=type(layer).__name__,
        shape=describe_layer(layer),
        weights=_count_weights(layer),
        macs=macs,
        decision=decision,
        reason=reason,
        remedy=remedy,
        caution=slowness(name, layer, macs, facts.calls[name]) if decision is Decision.BINARIZE else "",
    )


def _decide(name: str, layer: nn.Module, facts: Facts, options: ConvertOptions) -> tuple[Decision, str, str]:
    keep, binarize = Decision.KEEP, Decision.BINARIZE
    ask = f"--binarize '{name}'"
    obstacle = _without_twin(layer) or _without_call(name, facts)
    if obstacle is not None:
        return keep, *obstacle
    if any(fnmatch.fnmatchcase(name, glob) for glob in options.keep):
        return keep, "asked for with --keep", "no --keep that names it"
    if any(fnmatch.fnmatchcase(name, glob) for glob in options.binarize):
        return binarize, "asked for with --binarize", f"--keep '{name}'"
    doubt = _doubt(name, layer, facts)
    if doubt:
        return keep, doubt, ask
    return binarize, _inside(name, layer, facts), f"--keep '{name}'"


def _without_twin(layer: nn.Module) -> tuple[str, str] | None:
    """Return why no binary layer computes what ``layer`` does, and what would change that."""
    if likeness(layer) is not Likeness.OTHER:
        return None
    kind = type(layer).__name__
    for base in (nn.Conv2d, nn.Linear):
        if isinstance(layer, base):
            change = f"a nn.{base.__name__} in its place, in the network's own code"
            return f"{kind} computes something else than nn.{base.__name__}", change
    if is_layer(layer):
        return f"{kind}: there are binary operators for 2-D convolutions and linear layers only", ""
    return f"{kind} is neither a convolution nor a linear layer: nothing binary computes what it does", ""


def _without_call(name: str, facts: Facts) -> tuple[str, str] | None:
    """Return why a layer cannot be swapped where it stands, and what would change that."""
    if name in facts.inside:
        return f"part of {facts.inside[name]}, which computes in one piece", ""
    if facts.calls[name] > 0:
        return None
    if name in facts.read:
        change = "a call of the layer in its place, in the network's own code"
        return "its weights are read without calling it", change
    if facts.called[name] > 0:
        return "called under another name, in code that cannot be followed", ""
    return "not used by the forward pass, so that it costs nothing", ""


def _doubt(name: str, layer: nn.Module, facts: Facts) -> str:
    """Return why a layer that could be binarized is better kept, or ''."""
    kind = likeness(layer)
    if name in facts.tied:
        return f"shares its weights with '{facts.tied[name]}': binarized, each would have its own"
    if name in facts.silent:
        return "it was not called for an image: its weights may be read in another way"
    if name in facts.read:
        return "its weights are also read without calling it, where they would stay real"
    if facts.calls[name] > 1:
        return f"used {facts.calls[name]} times: one threshold serves several inputs badly"
    if kind is Likeness.COMPUTED_WEIGHT:
        return "its weights are computed from others (parametrized or pruned): it would keep their value"
    if kind is Likeness.HOOKED:
        return "it has hooks, which a binary layer would lose"
    if kind is Likeness.SUBCLASS:
        return f"{type(layer).__name__} is a class of its own: what it adds to its base would be lost"
    if isinstance(layer, nn.Linear):
        return "linear layer: unasked, only convolutions are binarized"
    if name in facts.first:
        return "first layer: it sees the image itself"
    if name in facts.last:
        return "last layer: it gives the answer"
    if layer.groups > 1:
        word = "depthwise" if layer.groups == layer.in_channels else f"grouped ({layer.groups} groups)"
        return f"{word}: sums of {layer.weight[0].numel()} signs say too little"
    if name in facts.downsample:
        return "1x1 downsample of a shortcut: few operations, and the only float path"
    if name in facts.pooled:
        return "works on pooled 1x1 values (a gate): hardly any operations"
    return ""


def _inside(name: str, layer: nn.Module, facts: Facts) -> str:
    reason = "inside the network"
    if likeness(layer) is Likeness.STANDARDIZED:
        reason += "; it starts from its standardized weights"
    if name in facts.untraced:
        reason += f"; '{facts.untraced[name]}' around it stays as it is, since it cannot be traced"
    return reason


def _count_weights(layer: nn.Module) -> int:
    if is_layer(layer):
        return layer.weight.numel()
    return sum(p.numel() for n, p in layer.named_parameters(recurse=False) if "weight" in n and p.dim() >= 2)


def describe_layer(layer: nn.Module) -> str:
    """Return the channels, kernel, stride and groups of a layer, or the shapes of its weights."""
    if isinstance(layer, nn.Linear):
        return f"{layer.in_features} -> {layer.out_features}"
    if not is_layer(layer):
        own = [p for n, p in layer.named_parameters(recurse=False) if "weight" in n and p.dim() >= 2]
        return ", ".join("x".join(str(size) for size in p.shape) for p in own)
    kernel = "x".join(str(k) for k in layer.kernel_size)
    stride = "" if set(layer.stride) == {1} else f" /{layer.stride[0]}"
    groups = "" if layer.groups == 1 else f" g{layer.groups}"
    return f"{layer.in_channels} -> {layer.out_channels}, {kernel}{stride}{groups}"
