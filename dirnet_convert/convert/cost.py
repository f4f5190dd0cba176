"""Whether a convolution is expected to run slower as binary than as FP32.

Two sums of the work that either form takes, each kind at a price fitted to measurements in ONNX Runtime, on
one core of an x86-64 CPU with AVX-512: FP32's blocked layout (its reorders not counted, as inside a
network) against this project's kernels, the Binarize of the input included. On other CPUs the ratios
differ.

Source: docs/results/layers: ``measure.py`` measures, ``fit.py`` fits and says how well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

# Closer to FP32's speed than this, the estimate could as well be wrong.
_MARGIN = 0.95
# Floats of a vector; input channels of a step; pixels of a tile, output channels of a block, bits of a word.
_VECTOR = 16
_UNIT = 32
_TILE = 6
_BLOCK = 64
_WORD = 64


@dataclass(frozen=True)
class ConvWork:
    """A convolution as the cost sees it: ``positions`` outputs of one image, each of ``taps`` taps."""

    channels: int
    outputs: int
    groups: int
    taps: int
    input_positions: int
    positions: int


# Nanoseconds for each of float_work's and binary_work's terms.
FLOAT_PRICES = {
    "call": 2715,
    "macs": 0.01658,
    "written": 0.1211,
    "weights": 0.02192,
    "copied": 0.2412,
    "unblocked macs": 0.0205,
    "depthwise macs": 0.01958,
    "depthwise written": 0.07325,
    "few-channel macs": 0.017,
}
BINARY_PRICES = {
    "call": 6183,
    "binarized": 0.03712,
    "words binarized": 2.082,
    "blocks": 87.2,
    "tiles": 14.64,
    "steps": 0.3866,
    "vectors written": 1.466,
    "shared steps": 0.4905,
    "groups moved": 3.039,
}


def float_work(conv: ConvWork) -> dict[str, float]:
    """Return how much of each kind of work ONNX Runtime's FP32 convolution of one image has."""
    group_in, group_out = conv.channels // conv.groups, conv.outputs // conv.groups
    blocked = conv.groups == 1 or group_in == 1 or not (group_in % _VECTOR or group_out % _VECTOR)
    if not blocked:  # the image is copied out tap by tap, then multiplied group by group
        copied = conv.positions * conv.taps * conv.channels
        macs = conv.positions * conv.taps * group_in * conv.outputs
        return {"call": 1, "copied": copied, "unblocked macs": macs}
    written = conv.positions * math.ceil(conv.outputs / _VECTOR) * _VECTOR
    macs = written * conv.taps * group_in
    if conv.groups > 1 and group_in == 1:
        return {"call": 1, "depthwise macs": macs, "depthwise written": written}
    if group_in < _VECTOR:
        return {"call": 1, "few-channel macs": macs, "written": written}
    return {"call": 1, "macs": macs, "written": written, "weights": macs // conv.positions}


def binary_work(conv: ConvWork) -> dict[str, float]:
    """Return how much of each kind of work the binary form of one image has, its Binarize included."""
    group_in, group_out = conv.channels // conv.groups, conv.outputs // conv.groups
    tiles = math.ceil(conv.positions / _TILE)
    shared = conv.groups > 1 and _UNIT % group_in == 0 and (_UNIT // group_in * group_out) % _VECTOR == 0
    if shared:
        vectors, blocks, units = math.ceil(conv.outputs / _VECTOR), math.ceil(conv.outputs / _BLOCK), 1
    else:
        vectors = conv.groups * math.ceil(group_out / _VECTOR)
        blocks = conv.groups * math.ceil(group_out / _BLOCK)
        units = math.ceil(group_in / _UNIT)
    work = {
        "call": 1,
        "binarized": conv.input_positions * conv.channels,
        "words binarized": conv.input_positions * math.ceil(conv.channels / _WORD),
        "blocks": blocks,
        "tiles": tiles * blocks,
        "shared steps" if shared else "steps": conv.positions * vectors * conv.taps * units,
        "vectors written": conv.positions * vectors,
    }
    if conv.groups > 1 and not shared and group_in % _UNIT:
        work["groups moved"] = conv.input_positions * conv.groups
    return work


def expected_speed(conv: ConvWork) -> float:
    """Return FP32's expected time by the binary form's: below 1, binary is slower."""
    return _nanoseconds(float_work(conv), FLOAT_PRICES) / _nanoseconds(binary_work(conv), BINARY_PRICES)


def _nanoseconds(work: dict[str, float], prices: dict[str, float]) -> float:
    return sum(amount * prices[kind] for kind, amount in work.items())


def slowness(name: str, layer: nn.Module, macs: int, calls: int) -> str:
    """Return a sentence where ``layer`` is expected to lose as binary, else an empty string.

    ``macs`` is what its ``calls`` calls for one image take together. Nothing is said where it is not known,
    and of anything but 2-D convolutions.
    """
    if not isinstance(layer, nn.Conv2d) or macs == 0:
        return ""
    positions = macs // (layer.weight.numel() * calls)
    speed = expected_speed(
        ConvWork(
            channels=layer.in_channels,
            outputs=layer.out_channels,
            groups=layer.groups,
            taps=math.prod(layer.kernel_size),
            input_positions=positions * math.prod(layer.stride),
            positions=positions,
        )
    )
    if speed >= _MARGIN:
        return ""
    return f"binary expected slower than FP32 here ({speed:.2g}x): keep it in float with --keep '{name}'"
