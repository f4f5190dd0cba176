"""How the input of a convolution is padded."""

from __future__ import annotations

import enum

from torch import Tensor, nn
from torch.nn import functional

Padding = tuple[int, int, int, int]


class PadMode(enum.StrEnum):
    """What stands at the border: zeros, as many zeros as the input's size asks for, or copies of values."""

    ZEROS = "zeros"
    SAME = "same"
    CIRCULAR = "circular"
    REFLECT = "reflect"
    REPLICATE = "replicate"

    @property
    def copies(self) -> bool:
        """Whether the border holds values of the input."""
        return self not in (PadMode.ZEROS, PadMode.SAME)


def resolve_padding(conv: nn.Conv2d) -> Padding:
    """Return the (top, left, bottom, right) padding of ``conv``, "same" and "valid" worked out.

    >>> resolve_padding(nn.Conv2d(1, 1, (3, 4), padding="same"))
    (1, 1, 1, 2)
    """
    if conv.padding == "valid":
        return (0, 0, 0, 0)
    if conv.padding == "same":
        # PyTorch puts the odd one at the end: total = dilation * (kernel - 1), before = total // 2.
        height, width = (d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
        return (height // 2, width // 2, height - height // 2, width - width // 2)
    vertical, horizontal = conv.padding
    return (int(vertical), int(horizontal), int(vertical), int(horizontal))


def same_padding(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> Padding:
    """Return the (top, left, bottom, right) padding that gives ceil(size / stride) positions.

    >>> same_padding((224, 225), (3, 3), (2, 2), (1, 1))
    (0, 1, 1, 1)

    Source: TensorFlow's "SAME": the odd one stands at the end.
    """
    before, after = [], []
    for length, taps, step, spread in zip(size, kernel, stride, dilation, strict=True):
        total = max((-(-length // step) - 1) * step + spread * (taps - 1) + 1 - length, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return (before[0], before[1], after[0], after[1])


def pad_with_copies(x: Tensor, padding: Padding, mode: PadMode) -> Tensor:
    """Return ``x`` (N, C, H, W) with copies of its values around it where ``mode`` asks for that, or as it
    is."""
    if not mode.copies:
        return x
    top, left, bottom, right = padding
    return functional.pad(x, (left, right, top, bottom), mode=mode.value)
