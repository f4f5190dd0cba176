"""Sets thresholds from real images so that bits are balanced, and measures batch-norm statistics again."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dirnet_convert.binarize.held_weights import held_weights
from dirnet_convert.binarize.layers import BinaryLayer, binary_layers, show_inputs
from dirnet_convert.binarize.norm_statistics import measure_norms, tracked_norms
from dirnet_convert.errors import UsageError
from dirnet_convert.graph import counted_calls
from dirnet_convert.modes import evaluating
from dirnet_convert.recipe import Threshold

# Enough values for a median; more only cost memory.
_MEDIAN_VALUES_PER_CHANNEL = 1 << 16
# Share of a channel's size within which values count as one: far above rounding, far below what matters.
_MARGIN = 1e-3


@dataclass(frozen=True)
class LayerBits:
    """How much the input bits of a binary layer say: mean entropy over channels (1 is balanced), share of
    +1."""

    name: str
    entropy_bits: float
    share_of_ones: float


def calibrate(
    network: nn.Module, images: Tensor, threshold: Threshold, batch_size: int = 64
) -> tuple[LayerBits, ...]:
    """Calibrate ``network`` in place on images (N, C, H, W) and report each binary layer's input bits.

    First the thresholds: one batch goes through the network, and each binary layer sets its own from its
    input before it uses them, so that later layers see what earlier ones now give. Then the batch norms:
    their running statistics become the mean over all batches.

    Source: IMB's aim for activations, H(bit) maximal, which is p(+1) = 0.5, so the threshold is the median.

    Raises:
        UsageError: too few images: a batch norm has a single value per channel, which has no variance.
    """
    norms = tracked_norms(network)
    handles = [norm.register_forward_pre_hook(_check_values) for norm in norms]
    try:
        with evaluating(network), torch.no_grad(), held_weights(network):
            repeated = _repeated_layers(network, images[:1]) if threshold is Threshold.MEDIAN else set()
            for norm in norms:
                norm.train()
            if threshold is Threshold.MEDIAN:
                _set_thresholds(network, images[: 2 * batch_size], repeated)
            measure_norms(network, images.split(batch_size))
            network.eval()
            return _measure_bits(network, images[: 2 * batch_size], batch_size)
    finally:
        for handle in handles:
            handle.remove()


def _check_values(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if norm.training and inputs[0].numel() == inputs[0].shape[1]:
        raise UsageError(
            "One image is too few to calibrate this network: a batch norm sees a single value per channel; "
            "use more images (convert.calibration_images)."
        )


def _repeated_layers(network: nn.Module, image: Tensor) -> set[nn.Module]:
    """Return the binary layers that the network calls more than once for an image (1, C, H, W)."""
    with counted_calls(network) as calls:
        network(image)
    return {m for name, m in network.named_modules() if isinstance(m, BinaryLayer) and calls[name] > 1}


def _set_thresholds(network: nn.Module, images: Tensor, repeated: set[nn.Module]) -> None:
    seen: dict[nn.Module, list[Tensor]] = defaultdict(list)

    def set_median(layer: BinaryLayer, x: Tensor) -> None:
        values = channel_values(x.detach(), layer.channel_axis)
        if layer in repeated:
            # One threshold serves all that the layer has seen.
            seen[layer].append(values.contiguous())
            values = torch.cat(seen[layer], 1)
        layer.threshold.copy_(channel_medians(values))

    handles = [show_inputs(layer, set_median) for layer in binary_layers(network)]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()


def channel_values(x: Tensor, axis: int) -> Tensor:
    """Return a sample of the values of ``x`` as (C, values)."""
    values = x.movedim(axis, 0)
    width = values.shape[-1]
    values = values.flatten(1)
    step = max(1, values.shape[1] // _MEDIAN_VALUES_PER_CHANNEL)
    # A step that shares a factor with the width would look at a few columns only, e.g. at the border's.
    while math.gcd(step, width) > 1:
        step += 1
    return values[:, ::step]


def channel_medians(values: Tensor) -> Tensor:
    """Return a threshold (C,) for each row of ``values`` (C, N) that halves it as evenly as ties allow.

    It lies half-way between the median and the next value that is clearly below it, or clearly above: a
    threshold on a frequent value (the zeros behind a ReLU, a flat background, a dead channel) would let a
    last-bit rounding in another engine flip all of its bits.
    """
    median = values.median(dim=1, keepdim=True).values
    spread = values.std(dim=1, keepdim=True, correction=0)
    margin = _MARGIN * (spread + median.abs()) + torch.finfo(values.dtype).eps
    lower = torch.where(values < median - margin, values, -torch.inf).amax(dim=1, keepdim=True)
    upper = torch.where(values > median + margin, values, torch.inf).amin(dim=1, keepdim=True)
    below = torch.where(lower.isfinite(), (lower + median) / 2, median - margin)
    above = torch.where(upper.isfinite(), (median + upper) / 2, median + margin)
    share_below = (values >= below).double().mean(dim=1, keepdim=True)
    share_above = (values >= above).double().mean(dim=1, keepdim=True)
    better = (share_above - 0.5).abs() < (share_below - 0.5).abs()
    return torch.where(better, above, below).squeeze(1)


def _measure_bits(network: nn.Module, images: Tensor, batch_size: int) -> tuple[LayerBits, ...]:
    ones: dict[str, Tensor] = {}
    totals: dict[str, int] = {}

    def count(name: str) -> Callable[[BinaryLayer, Tensor], None]:
        def hook(layer: BinaryLayer, x: Tensor) -> None:
            above = (x >= layer.aligned_threshold(x)).movedim(layer.channel_axis, 0).flatten(1)
            ones[name] = ones.get(name, 0) + above.sum(dim=1).double()
            totals[name] = totals.get(name, 0) + above.shape[1]

        return hook

    layers = {name: m for name, m in network.named_modules() if isinstance(m, BinaryLayer)}
    handles = [show_inputs(layer, count(name)) for name, layer in layers.items()]
    try:
        for batch in images.split(batch_size):
            network(batch)
    finally:
        for handle in handles:
            handle.remove()
    report = []
    for name in ones:
        p = ones[name] / totals[name]
        # H(p) = -p log2 p - (1 - p) log2 (1 - p), 0 at p = 0 and p = 1.
        entropy = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)) / torch.log(
            torch.tensor(2.0, dtype=p.dtype)
        )
        report.append(LayerBits(name, entropy.mean().item(), p.mean().item()))
    return tuple(report)
