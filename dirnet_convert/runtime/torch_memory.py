"""What operators for PyTorch share: tensors as the C interface takes them, where it is, and its threads."""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from dirnet_convert.runtime.isa import chosen_isa, isa_numbers
from dirnet_convert.runtime.library import c_interface

TYPES = {torch.float32: 0, torch.bfloat16: 1}
"""The types that the kernels read and write, by their numbers in the C interface."""


def last(x: Tensor) -> Tensor:
    """Return ``x`` (N, C, H, W) as (N, H, W, C), contiguous."""
    return x.permute(0, 2, 3, 1).contiguous()


def nearest_type(dtype: torch.dtype) -> torch.dtype:
    """Return ``dtype`` where the kernels have it, else float32."""
    return dtype if dtype in TYPES else torch.float32


def channels_last(x: Tensor) -> Tensor:
    """Return ``x`` (N, H, W, C) as (N, C, H, W), its memory as it is."""
    return x.permute(0, 3, 1, 2)


@functools.cache
def _fork() -> int | None:
    # PyTorch's threads spin for a while when their task is done. The kernels share them where they are those
    # of GNU's OpenMP; threads of their own would wait for a core.
    try:
        function = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None
    return ctypes.cast(function, ctypes.c_void_p).value


def thread_team() -> tuple[int, int | None]:
    """Return the C interface's last arguments: the number of threads, and who lends them."""
    return torch.get_num_threads(), _fork()


@functools.cache
def library_and_isa() -> tuple[ctypes.CDLL, int]:
    """Return the C interface and the number of the ISA to compute with.

    Found once: a training asks some thousand times a second.

    Raises:
        DirnetError: the compiled library is missing, or DIRNET_ISA cannot be obeyed.
    """
    return c_interface(), isa_numbers()[chosen_isa()]
