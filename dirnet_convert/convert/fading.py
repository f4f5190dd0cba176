"""Lets what was changed around binary layers fade in, from the pretrained network on."""

from __future__ import annotations

import copy
import dataclasses

from torch import fx, nn

from dirnet_convert.binarize.fading import Fade, FadingNetwork
from dirnet_convert.convert.binarize_network import Binarized
from dirnet_convert.convert.originals import operand_of, original_of
from dirnet_convert.models.detector_forward import DetectorForward

_CONTAINER = "fades"


def with_fading_structure(network: Binarized) -> Binarized:
    """Return ``network`` whose ``student_forward`` is a FadingNetwork, or has one as a detector's backbone.

    At a blend of 0 added shortcuts count nothing, activations are those of the pretrained network, and so are
    the shortcuts of blocks. Without a graph nothing was changed around layers, and nothing is to fade.
    """
    forward = network.student_forward
    if isinstance(forward, DetectorForward):
        forward.change_backbone(_fading)
        return network
    return dataclasses.replace(network, student_forward=_fading(forward))


def _fading(network: nn.Module) -> nn.Module:
    if not isinstance(network, fx.GraphModule):
        return network
    during = fx.GraphModule(network, copy.deepcopy(network.graph))
    by_name = {node.name: node for node in during.graph.nodes}
    faded: dict[fx.Node, fx.Node] = {}
    for node in by_name.values():
        operand = operand_of(node)
        # What nothing else reads went with its last reader.
        if operand is not None and operand.before in by_name:
            before, after = (faded.get(by_name[n], by_name[n]) for n in (operand.before, operand.after))
            with during.graph.inserting_before(node):
                fade = _call(during, f"{node.name}_operand", Fade(), (before, after))
            node.replace_input_with(after, fade)
        original = original_of(node)
        if original is not None:
            with during.graph.inserting_before(node.next):
                if isinstance(original, nn.Module):
                    before = _call(during, f"{node.name}_before", original, node.args)
                else:
                    before = by_name[original]
                faded[node] = fade = _call(during, node.name, Fade(), (before, node))
            node.replace_all_uses_with(fade, delete_user_cb=lambda user, fade=fade: user is not fade)
    if len(during.graph.nodes) == len(by_name):
        return network
    during.graph.lint()
    during.recompile()
    return FadingNetwork(during.train(network.training), network)


def _call(network: fx.GraphModule, name: str, module: nn.Module, args: tuple[fx.Node, ...]) -> fx.Node:
    network.add_submodule(f"{_CONTAINER}.{name}", module)
    return network.graph.call_module(f"{_CONTAINER}.{name}", args)
