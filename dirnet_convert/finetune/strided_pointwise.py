"""Pointwise convolutions with a stride and few inputs, which PyTorch cannot train on every processor."""

from __future__ import annotations

import types

from torch import Tensor, nn
from torch.nn import functional

# Channels of a block in the widest of oneDNN's kernels.
_BLOCK_CHANNELS = 16


def gather_before_pointwise(network: nn.Module) -> None:
    """Have such convolutions of ``network``, when they train on a processor, first take the pixels that their
    stride leaves, and convolve without one.

    Source: oneDNN's issue 6035. Its gradient of the weights gathers these pixels itself, in blocks of eight
    channels or more, and where the input has fewer, pixel after pixel, it writes past their place: a crash,
    a hang or wrong gradients, with AVX2. PyTorch's compiler has inputs that way always.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and _is_concerned(module):
            # What forward() calls; the module stays a Conv2d for all who look at its type.
            module._conv_forward = types.MethodType(_gather_and_convolve, module)


def _is_concerned(conv: nn.Conv2d) -> bool:
    return (
        conv.kernel_size == (1, 1)
        and max(conv.stride) > 1
        and conv.padding in ("valid", "same", (0, 0))
        and conv.in_channels < _BLOCK_CHANNELS
    )


def _gather_and_convolve(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not conv.training or x.device.type != "cpu":
        return nn.Conv2d._conv_forward(conv, x, weight, bias)
    down, right = conv.stride
    return functional.conv2d(x[..., ::down, ::right], weight, bias, groups=conv.groups)
