"""What rooms that read a network's torch.fx graph share."""

from __future__ import annotations

from torch import fx, nn


def module_of(graph_module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls, or None."""
    return graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None
