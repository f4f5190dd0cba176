"""Which layers have a binary twin, and how it is built from them."""

from __future__ import annotations

import enum

import torch
from timm.layers import Conv2dSame, Linear, ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn

from dirnet_convert.binarize.layers import BinaryConv2d, BinaryLayer, BinaryLinear
from dirnet_convert.binarize.padding import PadMode
from dirnet_convert.errors import DirnetError
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions

_STANDARDIZED = (StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame)
# timm's Linear casts under autocast while scripting, and else is PyTorch's.
_PLAIN = (nn.Conv2d, nn.Linear, Conv2dSame, Linear)
_OWN_COMPUTATION = ("forward", "_conv_forward")


class Likeness(enum.Enum):
    """How close a layer is to what a binary layer computes with signs."""

    PLAIN = "plain"
    STANDARDIZED = "standardized"
    """A convolution that standardizes its weights, as the method does anyway."""
    COMPUTED_WEIGHT = "computed weight"
    """Its weight comes from other parameters: parametrized, pruned, or normalized."""
    HOOKED = "hooked"
    SUBCLASS = "subclass"
    """A class of another name that computes what nn.Conv2d or nn.Linear does."""
    OTHER = "other"


def likeness(layer: nn.Module) -> Likeness:
    """Return how close ``layer`` is to what a binary layer computes; OTHER has no binary twin."""
    kind = type(layer)
    base = next((base for base in (nn.Conv2d, nn.Linear) if isinstance(layer, base)), None)
    if base is None or "forward" in vars(layer):
        return Likeness.OTHER
    known = kind in _PLAIN or kind in _STANDARDIZED
    if not known and any(getattr(kind, n, None) is not getattr(base, n, None) for n in _OWN_COMPUTATION):
        return Likeness.OTHER
    if "weight" not in dict(layer.named_parameters(recurse=False)):
        return Likeness.COMPUTED_WEIGHT
    if layer._forward_hooks or layer._forward_pre_hooks:
        return Likeness.HOOKED
    if kind in _STANDARDIZED:
        return Likeness.STANDARDIZED
    return Likeness.PLAIN if kind in _PLAIN else Likeness.SUBCLASS


def binary_twin(layer: nn.Module, options: ConvertOptions, estimator: EstimatorOptions) -> BinaryLayer:
    """Build the binary layer that starts from what ``layer`` computes with, thresholds at zero.

    Raises:
        DirnetError: it has none.
    """
    if likeness(layer) is Likeness.OTHER:
        raise DirnetError(
            f"A {type(layer).__name__} cannot be binarized: no binary layer computes what it does."
        )
    if isinstance(layer, nn.Linear):
        return BinaryLinear.from_linear(layer, options, estimator)
    twin = BinaryConv2d.from_conv(layer, options, estimator)
    if isinstance(layer, _STANDARDIZED):
        with torch.no_grad():
            twin.weight.copy_(_standardized_weight(layer))
    if isinstance(layer, Conv2dSame) or getattr(layer, "same_pad", False):
        twin.padding_mode = PadMode.SAME
    return twin


def _standardized_weight(layer: nn.Conv2d) -> Tensor:
    """Return the weights (O, I, H, W) that a weight-standardizing convolution computes with.

    Source: Qiao et al., "Weight Standardization", 2019, eq. 6; with a gain, Brock et al., "Characterizing
    signal propagation to close the performance gap in unnormalized ResNets", ICLR 2021, eq. 2.
    """
    flat = layer.weight.detach().flatten(1)
    mean, variance = flat.mean(1, keepdim=True), flat.var(1, correction=0, keepdim=True)
    standardized = ((flat - mean) / (variance + layer.eps).sqrt()).view_as(layer.weight)
    return standardized * layer.gain * layer.scale if hasattr(layer, "gain") else standardized
