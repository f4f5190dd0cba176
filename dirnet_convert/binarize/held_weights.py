"""Binary weights that are computed once for many forward passes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

from dirnet_convert.binarize.layers import binary_layers


@contextlib.contextmanager
def held_weights(network: nn.Module) -> Iterator[None]:
    """Let the binary layers of ``network`` in evaluation mode use weights that are computed here, once.

    A forward pass otherwise balances, standardizes and signs all of them again, which takes longer than the
    convolutions of a few images. Inside, latent weights must not change, and they receive no gradient. The
    held weights take as much memory as the latent ones until the end.
    """
    layers = [layer for layer in binary_layers(network) if layer.held_weight is None]
    try:
        for layer in layers:
            layer.hold_weight()
        yield
    finally:
        for layer in layers:
            layer.held_weight = None
