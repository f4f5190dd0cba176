"""Swaps planned convolutions for binary ones, in place, under their old names."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from dirnet_convert.binarize.layers import BinaryConv2d
from dirnet_convert.errors import DirnetError
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions


def swap_convolutions(
    network: nn.Module, names: Iterable[str], options: ConvertOptions, estimator: EstimatorOptions
) -> None:
    """Replace each named nn.Conv2d of ``network`` by a BinaryConv2d with its weights.

    Raises:
        DirnetError: a name is not a plain Conv2d of the network (a plan of another network).
    """
    for name in names:
        try:
            layer = network.get_submodule(name)
        except AttributeError:
            raise DirnetError(f"The network has no layer '{name}', which the plan binarizes.") from None
        if type(layer) is not nn.Conv2d:
            raise DirnetError(
                f"The plan binarizes '{name}', which is a {type(layer).__name__}, not a Conv2d."
            )
        binary = BinaryConv2d.from_conv(layer, options, estimator)
        # One layer may stand at several places of the tree.
        for place in [place for place, m in network.named_modules(remove_duplicate=False) if m is layer]:
            network.set_submodule(place, binary)
