"""Running statistics of batch norms, measured again."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dirnet_convert.binarize.held_weights import held_weights
from dirnet_convert.modes import evaluating


def tracked_norms(network: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of ``network`` that keep running statistics."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def measure_norms(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Let the running statistics of all batch norms be the mean over ``batches`` of images (N, C, H, W).

    A last batch that is smaller than the first is left out: of one or two images it would weigh as much as a
    whole one. All other modules are in evaluation mode meanwhile, so that nothing else changes.

    Source: Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3 (precise statistics): an average
    that forgets follows the last few steps of a training, whose weights have moved, and its augmented images.
    """
    norms = tracked_norms(network)
    momenta = [norm.momentum for norm in norms]
    with evaluating(network), torch.no_grad(), held_weights(network):
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            # PyTorch's word for the plain mean over all batches.
            norm.momentum = None
        try:
            whole = 0
            for batch in batches:
                whole = whole or len(batch)
                if len(batch) == whole:
                    network(batch)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
