"""The teacher as it is computed: its normalizations are part of its convolutions."""

from __future__ import annotations

import copy
from collections import Counter

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dirnet_convert.graph import module_of


def with_folded_norms(network: nn.Module) -> nn.Module:
    """Return a copy of ``network``, in eval mode, whose batch norms right behind a convolution are a part of
    it; a network without a graph is returned as it is.

    Source: w' = w * g / sqrt(v + eps), b' = (b - m) * g / sqrt(v + eps) + beta for gain g, shift beta, mean m
    and variance v of a batch norm (Jacob et al., CVPR 2018, section 3.2).
    """
    if not isinstance(network, fx.GraphModule):
        return network
    folded = copy.deepcopy(network).eval()
    calls = Counter(node.target for node in folded.graph.nodes if node.op == "call_module")
    for norm_node in list(folded.graph.nodes):
        norm = module_of(folded, norm_node)
        if type(norm) is not nn.BatchNorm2d or norm.running_var is None:
            continue
        (conv_node,) = norm_node.all_input_nodes
        conv = module_of(folded, conv_node)
        # A layer that is used twice, or whose output is, stays what it is.
        alone = calls[norm_node.target] == calls[conv_node.target] == len(conv_node.users) == 1
        # So does one that computes its weight at each call, from parameters of other names.
        if type(conv) is nn.Conv2d and isinstance(conv.weight, nn.Parameter) and alone:
            folded.set_submodule(conv_node.target, fuse_conv_bn_eval(conv, norm))
            norm_node.replace_all_uses_with(conv_node)
            folded.graph.erase_node(norm_node)
    folded.delete_all_unused_submodules()
    folded.recompile()
    return folded
