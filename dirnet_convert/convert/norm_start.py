"""Gives batch norms that were added behind binary layers the size of the pretrained layers' outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from dirnet_convert.convert.calibrate import channel_values
from dirnet_convert.graph import module_of
from dirnet_convert.modes import evaluating

# Enough for a mean and a deviation.
_IMAGES = 128


def start_added_norms(student: nn.Module, teacher: nn.Module, added: tuple[str, ...], images: Tensor) -> None:
    """Set weight and bias of the batch norms ``added`` to ``student``, by node name, from ``images``
    (N, C, H, W).

    A norm makes its input's mean 0 and deviation 1 per channel, whatever the layer in front of it computes.
    With the mean and the deviation that the pretrained layer's output has as bias and weight, what comes out
    is the pretrained layer's output where the layer in front differs from it by a factor per channel.
    """
    if not added or not isinstance(student, fx.GraphModule) or not isinstance(teacher, fx.GraphModule):
        return
    by_name = {node.name: node for node in student.graph.nodes}
    norms = {by_name[name].all_input_nodes[0].name: module_of(student, by_name[name]) for name in added}
    with evaluating(teacher), torch.no_grad():
        _Statistics(teacher, norms).run(images[:_IMAGES])


class _Statistics(fx.Interpreter):
    """Runs the pretrained network and hands each layer's statistics to the norm behind its binary twin."""

    def __init__(self, teacher: fx.GraphModule, norms: dict[str, nn.Module]) -> None:
        super().__init__(teacher)
        self.norms = norms
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        norm = self.norms.get(n.name)
        if norm is not None:
            values = channel_values(value, 1 if isinstance(norm, nn.BatchNorm2d) else -1)
            norm.bias.copy_(values.mean(1))
            norm.weight.copy_(values.std(1, correction=0))
        return value
