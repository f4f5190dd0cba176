"""Export, verify, and only then write: a file that is at its path has been compared with PyTorch."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import onnx
import torch
from torch import Tensor, nn

from dirnet_convert.errors import DirnetError
from dirnet_convert.onnx_export.engine_check import relative_error
from dirnet_convert.onnx_export.exporter import (
    ExportResult,
    binary_model,
    float_model,
    summarize,
    write_model,
)
from dirnet_convert.onnx_export.probe import image_batches
from dirnet_convert.onnx_export.verify import verify_export
from dirnet_convert.onnx_export.verify_report import ExportMismatch, Tolerances, VerifyReport
from dirnet_convert.runtime.library import library_path
from dirnet_convert.runtime.session import Kernels, load_session

# Another order of summation takes the runtime's float32 about as far from the exact result as PyTorch's own;
# what is this many times as far is no rounding.
_ROUNDING_FACTOR = 8.0
# However coarse a network's own float32 is, a file that far from it would be of no use.
_MOST_ROUNDING = 0.1

Told = TypeVar("Told", covariant=True)


@dataclass(frozen=True)
class CheckedExport:
    """A written file and how close it is to PyTorch."""

    result: ExportResult
    report: VerifyReport


@dataclass(frozen=True)
class VerifiedModel(Generic[Told]):
    """A model that was compared with PyTorch and is not written yet; ``told`` is what its file will be."""

    model: onnx.ModelProto
    path: Path
    told: Told

    def write(self) -> Told:
        """Write the model to its path, whole or not at all.

        Raises:
            DirnetError: the folder cannot be written.
        """
        write_model(self.model, self.path)
        return self.told


def available_engines() -> tuple[Kernels, ...]:
    """Return what an export can be verified with here: the kernels too, where the library is installed."""
    try:
        library_path()
    except DirnetError:
        return (Kernels.STOCK,)
    return (Kernels.STOCK, Kernels.DIRNET)


def export_checked(
    student: nn.Module,
    images: Tensor,
    path: Path,
    *,
    engines: tuple[Kernels, ...] | None = None,
    threads: int | None = None,
) -> CheckedExport:
    """Write ``student`` to ``path`` after comparing it with PyTorch on ``images`` (N, C, H, W).

    ``engines`` are all that there are here where None, ``threads`` all cores.

    Raises:
        ExportMismatch: the model differs; ``path`` is untouched.
        DirnetError: PyTorch cannot export the network, or the folder cannot be written.
    """
    return verified_export(student, images, path, engines=engines, threads=threads).write()


def verified_export(
    student: nn.Module,
    images: Tensor,
    path: Path,
    *,
    engines: tuple[Kernels, ...] | None = None,
    threads: int | None = None,
) -> VerifiedModel[CheckedExport]:
    """Return ``student`` as a model for ``path``, compared with PyTorch on ``images`` (N, C, H, W).

    Raises:
        ExportMismatch: the model differs.
        DirnetError: PyTorch cannot export the network.
    """
    model, changes = binary_model(student, images[:1])
    report = verify_export(
        student,
        model,
        images,
        engines=engines or available_engines(),
        threads=threads,
    )
    return VerifiedModel(
        model, path, CheckedExport(summarize(model, changes, path, model.ByteSize()), report)
    )


def verified_float(network: nn.Module, images: Tensor, path: Path) -> VerifiedModel[int]:
    """Return the float ``network`` as a model for ``path``, its logits compared on ``images`` (N, C, H, W).

    What is told is the size in bytes.

    Raises:
        ExportMismatch: the model differs.
        DirnetError: PyTorch cannot export the network.
    """
    model = float_model(network, images[:1])
    check_float(network, model, images, Tolerances())
    return VerifiedModel(model, path, model.ByteSize())


def check_float(network: nn.Module, model: onnx.ModelProto, images: Tensor, tolerances: Tolerances) -> float:
    """Return the largest |difference| of the logits on ``images`` (N, C, H, W) over their root mean square.

    Raises:
        ExportMismatch: it is more than ``tolerances.rounding``, and more than the network itself explains; or
            the network's own logits are not finite, and nothing can be compared with them.
    """
    session = load_session(model.SerializeToString(), kernels=Kernels.STOCK)
    name = session.get_inputs()[0].name
    batches = tuple(image_batches(model, images, batch_size=8))
    got = torch.cat([torch.from_numpy(session.run(None, {name: batch.numpy()})[0]) for batch in batches])
    reference = copy.deepcopy(network).cpu().eval()
    own = _logits(reference, batches)
    error = relative_error(got, own)
    if not error <= tolerances.rounding:
        # Networks whose last layers cancel large terms multiply their rounding. How much this one does is
        # seen in PyTorch itself, between its own float32 and float64.
        exact = _logits(reference.double(), tuple(batch.double() for batch in batches))
        if not (own.isfinite().all() and exact.isfinite().all()):
            raise ExportMismatch("the output", "PyTorch's own logits are not all finite numbers")
        error = relative_error(got.double(), exact)
        allowed = min(_MOST_ROUNDING, _ROUNDING_FACTOR * relative_error(own.double(), exact))
        if not error <= max(tolerances.rounding, allowed):
            raise ExportMismatch("the output", f"it differs by {error:.3g} of its root mean square")
    return error


def _logits(network: nn.Module, batches: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad():
        return torch.cat([network(batch) for batch in batches])
