"""Export with INT8 for the rest: verified in float first, then quantized, measured, and only then written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dirnet_convert.data.source import ImageSource
from dirnet_convert.onnx_export.checked import CheckedExport, available_engines
from dirnet_convert.onnx_export.exporter import binary_model, summarize, write_model
from dirnet_convert.onnx_export.quantize_rest import quantize_rest
from dirnet_convert.onnx_export.rest_check import RestReport, check_rest
from dirnet_convert.onnx_export.verify import verify_export
from dirnet_convert.onnx_export.verify_report import Tolerances
from dirnet_convert.runtime.session import Kernels

CALIBRATION_IMAGES = 64
ACCURACY_IMAGES = 1000


@dataclass(frozen=True)
class Int8RestExport(CheckedExport):
    """A written file whose rest is INT8: ``report`` is of the float rest, ``rest`` of what INT8 changed."""

    rest: RestReport


def export_int8_rest(
    student: nn.Module,
    images: Tensor,
    source: ImageSource,
    path: Path,
    *,
    seed: int = 0,
    engines: tuple[Kernels, ...] | None = None,
    tolerances: Tolerances | None = None,
    threads: int | None = None,
) -> Int8RestExport:
    """Write ``student`` to ``path`` with INT8 layers beside the binary ones, calibrated on ``source``.

    Before quantizing, the model is compared with PyTorch on ``images`` (N, C, H, W). ``engines`` are all that
    there are here where None, ``threads`` all cores.

    Raises:
        ExportMismatch: the float model differs from PyTorch; ``path`` is untouched.
        DirnetError: the network cannot be exported or quantized, or the folder cannot be written.
    """
    used = engines or available_engines()
    model, changes = binary_model(student, images[:1])
    report = verify_export(student, model, images, engines=used, tolerances=tolerances, threads=threads)
    calibration = source.calibration_images(CALIBRATION_IMAGES, seed)
    quantized = quantize_rest(model, calibration.numpy())
    rest = check_rest(
        model,
        quantized.model,
        quantized.layers,
        source,
        calibration_images=len(calibration),
        limit=ACCURACY_IMAGES,
        images=images,
        engines=used,
        tolerances=tolerances or Tolerances(),
        threads=threads,
    )
    size = write_model(quantized.model, path)
    # The float model's nodes are the names that a person knows; the quantized one has the same, and its own.
    return Int8RestExport(summarize(model, changes, path, size), report, rest)
