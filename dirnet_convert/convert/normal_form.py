"""Brings a traced graph into the form that rewrites rely on: no overwritten values, batch norm and dropout as
modules."""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, fx, nn
from torch.nn import functional

from dirnet_convert.convert.trace import shape_of
from dirnet_convert.graph import free_target, module_of

_OPERATORS: dict[Any, Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
_DROPOUTS: dict[Any, type[nn.Module]] = {
    functional.dropout: nn.Dropout,
    functional.dropout2d: nn.Dropout2d,
    functional.alpha_dropout: nn.AlphaDropout,
}
_DROPOUT_CONTAINER = "dropouts"


def split_norms(graph_module: fx.GraphModule) -> None:
    """Make timm's batch norm with an activation inside a batch norm and a call of its activation, under their
    old names.

    Rewrites look for batch norms and activations one by one. The parameters are shared.
    """
    nodes = [n for n in graph_module.graph.nodes if isinstance(module_of(graph_module, n), BatchNormAct2d)]
    for target in dict.fromkeys(str(node.target) for node in nodes):
        graph_module.set_submodule(target, _plain_norm(graph_module.get_submodule(target)))
    for node in nodes:
        last = node
        for part in ("drop", "act"):
            if isinstance(graph_module.get_submodule(f"{node.target}.{part}"), nn.Identity):
                continue
            with graph_module.graph.inserting_after(last):
                call = graph_module.graph.call_module(f"{node.target}.{part}", (last,))
            last.replace_all_uses_with(call, delete_user_cb=lambda user, call=call: user is not call)
            last = call
    graph_module.recompile()


def _plain_norm(fused: BatchNormAct2d) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(
        fused.num_features, fused.eps, fused.momentum, fused.affine, fused.track_running_stats
    ).train(fused.training)
    for name, parameter in fused.named_parameters(recurse=False):
        setattr(norm, name, parameter)
    for name, buffer in fused.named_buffers(recurse=False):
        setattr(norm, name, buffer)
    norm.drop, norm.act = fused.drop, fused.act
    return norm


def inputs_by_place(graph_module: fx.GraphModule) -> None:
    """Make each call of a module with its one input named, as in ``conv(input=x)``, one without the name."""
    for node in graph_module.graph.nodes:
        if node.op == "call_module" and not node.args and len(node.kwargs) == 1:
            module = graph_module.get_submodule(str(node.target))
            first = next(iter(inspect.signature(module.forward).parameters), None)
            if first in node.kwargs:
                node.args, node.kwargs = (node.kwargs[first],), {}
    graph_module.recompile()


def dropouts_as_modules(graph_module: fx.GraphModule) -> None:
    """Make each functional dropout that was off while tracing a module, which knows when the network is
    trained."""
    for node in list(graph_module.graph.nodes):
        if node.op != "call_function" or node.target not in _DROPOUTS:
            continue
        arguments = _arguments(node)
        if arguments["training"] is not False or not isinstance(arguments["p"], int | float):
            continue
        target = free_target(graph_module, _DROPOUT_CONTAINER, node.name)
        graph_module.add_submodule(
            target, _DROPOUTS[node.target](arguments["p"]).train(graph_module.training)
        )
        with graph_module.graph.inserting_after(node):
            call = graph_module.graph.call_module(target, (arguments["input"],))
        node.replace_all_uses_with(call)
        graph_module.graph.erase_node(node)
    graph_module.recompile()


def remove_overwriting(graph_module: fx.GraphModule) -> None:
    """Make every operation that overwrites its input return a new value; later readers of the input read that
    value.

    A rewrite adds readers and moves nodes, so what a value is must not depend on when it is read. Shapes must
    be known.
    """
    order = {node: place for place, node in enumerate(graph_module.graph.nodes)}
    for node in [n for n in order if shape_of(n) is not None and _overwrites(graph_module, n)]:
        source = node.all_input_nodes[0]
        for user in list(source.users):
            if order[user] > order[node]:
                user.replace_input_with(source, node)
        _make_pure(graph_module, node)
    for node in order:
        layer = module_of(graph_module, node)
        if getattr(layer, "inplace", False) is True:
            pure = copy.copy(layer)
            pure.inplace = False
            graph_module.set_submodule(str(node.target), pure)
    graph_module.recompile()


def _overwrites(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if not node.all_input_nodes:
        return False
    if node.op == "call_module":
        # Dropout is off while the graph is read, and then overwrites nothing.
        layer = module_of(graph_module, node)
        return getattr(layer, "inplace", False) is True and not isinstance(
            layer, nn.modules.dropout._DropoutNd
        )
    if node.op == "call_function":
        return (
            node.target in _OPERATORS
            or _pure_function(node.target) is not None
            or _arguments(node).get("inplace") is True
        )
    return node.op == "call_method" and _pure_method(str(node.target)) is not None


def _make_pure(graph_module: fx.GraphModule, node: fx.Node) -> None:
    if node.op == "call_method":
        node.target = _pure_method(str(node.target))
    elif node.op == "call_function" and node.target in _OPERATORS:
        node.target = _OPERATORS[node.target]
    elif node.op == "call_function" and (pure := _pure_function(node.target)) is not None:
        node.target = pure
    elif node.op == "call_function":
        node.args, node.kwargs = (), {**_arguments(node), "inplace": False}


def _arguments(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of a call of a Python function by name, or nothing for a built-in one."""
    if not inspect.isfunction(node.target):
        return {}
    bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _pure_method(name: str) -> str | None:
    base = name.removesuffix("_")
    return (
        base if base != name and not name.endswith("__") and callable(getattr(Tensor, base, None)) else None
    )


def _pure_function(target: Any) -> Callable[..., Any] | None:
    name = getattr(target, "__name__", "")
    base = name.removesuffix("_")
    return getattr(torch, base, None) if base != name and getattr(torch, name, None) is target else None
