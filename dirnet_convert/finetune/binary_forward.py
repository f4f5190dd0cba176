"""Which arithmetic the binary convolutions of a training have in their forward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from dirnet_convert.binarize.kernel_conv import Arithmetic
from dirnet_convert.binarize.layers import BinaryConv2d
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.recipe import BinaryForward
from dirnet_convert.runtime.isa import Isa, chosen_isa

# These are there to be right everywhere; PyTorch's convolution is faster.
_SLOW = (Isa.REFERENCE, Isa.PORTABLE)


def set_arithmetic(
    student: nn.Module, wanted: BinaryForward, device: torch.device, note: Callable[[str], None]
) -> None:
    """Give the binary convolutions of ``student`` the arithmetic that is ``wanted``; AUTO says where it falls
    back.

    Raises:
        UsageError: KERNELS on an accelerator.
        DirnetError: KERNELS, and there is no compiled library.
    """
    layers = [layer for layer in student.modules() if isinstance(layer, BinaryConv2d)]
    arithmetic = _arithmetic(wanted, device, note) if layers else Arithmetic.TORCH
    if arithmetic is Arithmetic.KERNELS:
        # Registers the operator; without kernels there is no need of it.
        import dirnet_convert.runtime.torch_operator  # noqa: F401
    for layer in layers:
        layer.arithmetic = arithmetic


def _arithmetic(wanted: BinaryForward, device: torch.device, note: Callable[[str], None]) -> Arithmetic:
    if wanted is BinaryForward.TORCH or (wanted is BinaryForward.AUTO and device.type != "cpu"):
        return Arithmetic.TORCH
    if device.type != "cpu":
        raise UsageError(
            f"binary_forward = kernels is for training on processors, and this is on {device}; "
            "set it to auto."
        )
    try:
        isa = chosen_isa()
    except DirnetError as error:
        if wanted is BinaryForward.KERNELS:
            raise
        note(f"Binary convolutions are computed in PyTorch, which takes longer. {error}")
        return Arithmetic.TORCH
    if wanted is BinaryForward.AUTO and isa in _SLOW:
        note(f"Binary convolutions are computed in PyTorch: the kernels' ISA '{isa}' is slower.")
        return Arithmetic.TORCH
    return Arithmetic.KERNELS
