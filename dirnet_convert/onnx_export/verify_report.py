"""What verifying an export yields: how close everything was, or the first layer that is off."""

from __future__ import annotations

from dataclasses import dataclass

from dirnet_convert.errors import DirnetError
from dirnet_convert.runtime.session import Kernels

ENGINE_NAMES = {Kernels.DIRNET: "dirnet's kernels", Kernels.STOCK: "stock ONNX Runtime"}


@dataclass(frozen=True)
class Tolerances:
    """How much may differ, and why that much.

    operator: each step of an operator is one rounding, in the same order on every route, so nothing need
        differ; a few units in the last place are granted to builds that fuse multiplication and addition.
    rounding: batch normalization is folded in float64 and rounded once, where PyTorch rounds at each step;
        relative to the root mean square of the layer's output, and of the logits.
    flipped_share: bits of one layer that may fall on the other side, all of them within ``rounding`` of a
        threshold; some 1e-6 of the values lie within a rounding of it, and real networks have coarse values.
    """

    operator: float = 1e-6
    rounding: float = 1e-3
    flipped_share: float = 1e-3


class ExportMismatch(DirnetError):
    """The exported model does not compute what PyTorch computes; ``layer`` is the first one that differs."""

    def __init__(self, layer: str, reason: str) -> None:
        super().__init__(
            f"The exported model differs from PyTorch at {layer}: {reason}. Nothing was written."
        )
        self.layer = layer


@dataclass(frozen=True)
class LayerReport:
    """One binary layer, worst over images and engines.

    ``flipped_share``: bits on the other side although PyTorch followed the engine's bits up to here;
    ``free_flipped_share``: the same where PyTorch went its own way; ``error``: |difference| of the layer's
    values over their root mean square, None where PyTorch has no module that returns them.
    """

    name: str
    operator: str
    flipped_share: float
    free_flipped_share: float
    error: float | None


@dataclass(frozen=True)
class EngineReport:
    """The final outputs of one engine against PyTorch's.

    ``error``: worst |difference| of a logit over the logits' root mean square, PyTorch following the engine's
    bits; ``free_error`` and ``top1_agreement``: with each on its own; None where there are several outputs.
    """

    kernels: Kernels
    error: float
    free_error: float
    top1_agreement: float | None


@dataclass(frozen=True)
class VerifyReport:
    """What was compared and how close it was."""

    images: int
    layers: tuple[LayerReport, ...]
    engines: tuple[EngineReport, ...]
    tolerances: Tolerances
