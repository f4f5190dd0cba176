"""Which number format a training's convolutions are computed in."""

from __future__ import annotations

import torch

from dirnet_convert.recipe import Precision


def chosen_precision(wanted: Precision, device: torch.device) -> Precision:
    """Return ``wanted``; for AUTO bfloat16 where ``device`` has arithmetic of its own for it, else float32.

    >>> chosen_precision(Precision.FLOAT32, torch.device("cpu"))
    <Precision.FLOAT32: 'float32'>
    """
    if wanted is not Precision.AUTO:
        return wanted
    return Precision.BFLOAT16 if _computes_in_bfloat16(device) else Precision.FLOAT32


def _computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Processors with AMX have these instructions, too. Without them each number is converted.
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
