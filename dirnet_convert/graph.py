"""What rooms that look into a network share."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator

import torch
from torch import fx, nn


def free_target(graph_module: fx.GraphModule, container: str, name: str) -> str:
    """Return ``container.name`` for a module that a rewrite adds, with a number behind ``container`` where
    the network has something of that name; the same for the same network, whose weights are stored by it."""
    for holder in itertools.chain([container], (f"{container}_{number}" for number in itertools.count(2))):
        present = getattr(graph_module, holder, None)
        if present is None or (isinstance(present, nn.Module) and not hasattr(present, name)):
            break
    return f"{holder}.{name}"


def module_of(graph_module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls, or None."""
    return graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None


@contextlib.contextmanager
def counted_calls(network: nn.Module) -> Iterator[Counter[str]]:
    """Count how often each module of ``network`` is called meanwhile, under each of its names."""
    calls: Counter[str] = Counter()
    handles = [
        module.register_forward_pre_hook(lambda _m, _x, name=name: calls.update([name]))
        for name, module in network.named_modules(remove_duplicate=False)
        # Compiled modules take no hooks.
        if not isinstance(module, torch.jit.ScriptModule)
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
