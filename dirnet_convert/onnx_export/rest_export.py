"""A model with INT8 for the rest: verified in float first, then quantized and measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dirnet_convert.data.source import ImageSource
from dirnet_convert.onnx_export.checked import CheckedExport, VerifiedModel, available_engines
from dirnet_convert.onnx_export.exporter import binary_model, summarize
from dirnet_convert.onnx_export.quantize_rest import quantize_rest
from dirnet_convert.onnx_export.rest_check import RestReport, check_rest
from dirnet_convert.onnx_export.verify import verify_export
from dirnet_convert.onnx_export.verify_report import Tolerances

CALIBRATION_IMAGES = 64
ACCURACY_IMAGES = 1000


@dataclass(frozen=True)
class Int8RestExport(CheckedExport):
    """A written file whose rest is INT8: ``report`` is of the float rest, ``rest`` of what INT8 changed."""

    rest: RestReport


def verified_int8_rest(
    student: nn.Module, images: Tensor, source: ImageSource, path: Path, *, seed: int = 0
) -> VerifiedModel[Int8RestExport]:
    """Return ``student`` for ``path`` with INT8 layers beside the binary ones, calibrated on ``source``.

    Before quantizing, the model is compared with PyTorch on ``images`` (N, C, H, W).

    Raises:
        ExportMismatch: the float model differs from PyTorch.
        DirnetError: the network cannot be exported or quantized, or engines disagree about it.
    """
    engines = available_engines()
    model, changes = binary_model(student, images[:1])
    report = verify_export(student, model, images, engines=engines)
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
        engines=engines,
        tolerances=Tolerances(),
    )
    # The float model's nodes are the names that a person knows; the quantized one has the same, and its own.
    result = summarize(model, changes, path, quantized.model.ByteSize())
    return VerifiedModel(quantized.model, path, Int8RestExport(result, report, rest))
