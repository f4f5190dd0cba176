"""Export a detector, verify it, and only then write it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dirnet_convert.onnx_export.checked import CheckedExport, available_engines
from dirnet_convert.onnx_export.detector.model import Form, detector_model, supported
from dirnet_convert.onnx_export.detector.verify import DetectionReport, verify_detector
from dirnet_convert.onnx_export.exporter import summarize, write_model
from dirnet_convert.onnx_export.verify_report import Tolerances
from dirnet_convert.runtime.detector import DetectorInfo
from dirnet_convert.runtime.session import Kernels


@dataclass(frozen=True)
class CheckedDetector(CheckedExport):
    """A written detector, how close its layers are to PyTorch, and how its detections compare."""

    detections: tuple[DetectionReport, ...]


def export_detector_checked(
    student: nn.Module,
    images: Tensor,
    info: DetectorInfo,
    path: Path,
    *,
    engines: tuple[Kernels, ...] | None = None,
    tolerances: Tolerances | None = None,
    threads: int | None = None,
) -> CheckedDetector:
    """Write the detector ``student`` to ``path`` after comparing it with PyTorch on ``images`` (N, C, H, W).

    ``engines`` are all that there are here where None, ``threads`` all cores.

    Raises:
        ExportMismatch: the model differs; ``path`` is untouched.
        UsageError: it is neither an SSD nor a Faster R-CNN.
        DirnetError: PyTorch cannot export the network, or the folder cannot be written.
    """
    model = detector_model(student, images[:1], info, Form.BINARY)
    report = verify_detector(
        supported(student),
        model,
        images,
        engines=engines or available_engines(),
        tolerances=tolerances,
        threads=threads,
    )
    result = summarize(model.proto, model.changes, path, write_model(model.proto, path))
    return CheckedDetector(result, report.layers, report.detections)


def export_float_detector_checked(
    detector: nn.Module,
    images: Tensor,
    info: DetectorInfo,
    path: Path,
    *,
    tolerances: Tolerances | None = None,
) -> int:
    """Write the float ``detector`` to ``path`` after comparing it on ``images``; return the size in bytes.

    Raises:
        ExportMismatch: the model differs; ``path`` is untouched.
        UsageError: it is neither an SSD nor a Faster R-CNN.
        DirnetError: PyTorch cannot export the network, or the folder cannot be written.
    """
    model = detector_model(detector, images[:1], info, Form.FLOAT)
    verify_detector(supported(detector), model, images, engines=(Kernels.STOCK,), tolerances=tolerances)
    return write_model(model.proto, path)
