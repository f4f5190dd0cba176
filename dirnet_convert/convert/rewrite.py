"""Swaps planned layers for binary ones, in place, under their old names."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from dirnet_convert.binarize.twins import Likeness, binary_twin, likeness
from dirnet_convert.errors import DirnetError
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions


def swap_layers(
    network: nn.Module, names: Iterable[str], options: ConvertOptions, estimator: EstimatorOptions
) -> None:
    """Replace each named layer of ``network`` by the binary one that starts from its weights.

    Raises:
        DirnetError: a name is no such layer of the network (a plan of another network).
    """
    for name in names:
        try:
            layer = network.get_submodule(name)
        except AttributeError:
            raise DirnetError(f"The network has no layer '{name}', which the plan binarizes.") from None
        if likeness(layer) is Likeness.OTHER:
            raise DirnetError(
                f"The plan binarizes '{name}', which is a {type(layer).__name__} and has no binary form."
            )
        binary = binary_twin(layer, options, estimator)
        # One layer may stand at several places of the tree.
        for place in [place for place, m in network.named_modules(remove_duplicate=False) if m is layer]:
            network.set_submodule(place, binary)
