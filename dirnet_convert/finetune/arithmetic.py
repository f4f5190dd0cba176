"""Which arithmetic a training has: PyTorch's alone, or that of the compiled kernels where they are faster."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from dirnet_convert.binarize.kernel_conv import Arithmetic
from dirnet_convert.binarize.layers import BinaryConv2d
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.recipe import TrainArithmetic
from dirnet_convert.runtime.isa import Isa, chosen_isa, isa_numbers
from dirnet_convert.runtime.library import c_interface

# These are there to be right everywhere; PyTorch's arithmetic is faster.
_SLOW = (Isa.REFERENCE, Isa.PORTABLE)


def set_arithmetic(
    student: nn.Module, wanted: TrainArithmetic, device: torch.device, note: Callable[[str], None]
) -> Arithmetic:
    """Give the binary convolutions of ``student`` the arithmetic that is ``wanted``, and return it; AUTO says
    where it falls back. Without binary convolutions it is PyTorch's.

    Raises:
        UsageError: KERNELS on an accelerator.
        DirnetError: KERNELS, and there is no compiled library, or none with what trainings need.
    """
    layers = [layer for layer in student.modules() if isinstance(layer, BinaryConv2d)]
    arithmetic = _arithmetic(wanted, device, note) if layers else Arithmetic.TORCH
    if arithmetic is Arithmetic.KERNELS:
        # Registers the operator; without kernels there is no need of it.
        import dirnet_convert.runtime.torch_operator  # noqa: F401
    for layer in layers:
        layer.arithmetic = arithmetic
    return arithmetic


def _arithmetic(wanted: TrainArithmetic, device: torch.device, note: Callable[[str], None]) -> Arithmetic:
    if wanted is TrainArithmetic.TORCH or (wanted is TrainArithmetic.AUTO and device.type != "cpu"):
        return Arithmetic.TORCH
    if device.type != "cpu":
        raise UsageError(
            f"arithmetic = kernels is for training on processors, and this is on {device}; set it to auto."
        )
    try:
        isa = _training_isa()
    except DirnetError as error:
        if wanted is TrainArithmetic.KERNELS:
            raise
        note(f"All is computed in PyTorch, which takes longer. {error}")
        return Arithmetic.TORCH
    if wanted is TrainArithmetic.AUTO and isa in _SLOW:
        note(f"All is computed in PyTorch: the kernels' ISA '{isa}' is slower.")
        return Arithmetic.TORCH
    return Arithmetic.KERNELS


def _training_isa() -> Isa:
    isa = chosen_isa()
    if not c_interface().dirnet_training_built(isa_numbers()[isa]):
        raise DirnetError(
            "The compiled library was built without what trainings need; build it with GCC or Clang."
        )
    return isa
