"""What rooms that look into a network share."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from torch import fx, nn


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
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
