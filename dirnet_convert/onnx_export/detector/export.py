"""A detector as a model that is verified and can then be written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dirnet_convert.onnx_export.checked import CheckedExport, VerifiedModel, available_engines
from dirnet_convert.onnx_export.detector.model import Form, detector_model, supported
from dirnet_convert.onnx_export.detector.verify import DetectionReport, verify_detector
from dirnet_convert.onnx_export.exporter import summarize
from dirnet_convert.runtime.detector import DetectorInfo
from dirnet_convert.runtime.session import Kernels


@dataclass(frozen=True)
class CheckedDetector(CheckedExport):
    """A written detector, how close its layers are to PyTorch, and how its detections compare."""

    detections: tuple[DetectionReport, ...]


def verified_detector(
    student: nn.Module, images: Tensor, info: DetectorInfo, path: Path
) -> VerifiedModel[CheckedDetector]:
    """Return the detector ``student`` for ``path``, compared with PyTorch on ``images`` (N, C, H, W).

    Raises:
        ExportMismatch: the model differs.
        UsageError: it is neither an SSD nor a Faster R-CNN.
        DirnetError: PyTorch cannot export the network.
    """
    model = detector_model(student, images[:1], info, Form.BINARY)
    report = verify_detector(supported(student), model, images, engines=available_engines())
    result = summarize(model.proto, model.changes, path, model.proto.ByteSize())
    return VerifiedModel(model.proto, path, CheckedDetector(result, report.layers, report.detections))


def verified_float_detector(
    detector: nn.Module, images: Tensor, info: DetectorInfo, path: Path
) -> VerifiedModel[int]:
    """Return the float ``detector`` for ``path``, compared on ``images``; told is the size in bytes.

    Raises:
        ExportMismatch: the model differs.
        UsageError: it is neither an SSD nor a Faster R-CNN.
        DirnetError: PyTorch cannot export the network.
    """
    model = detector_model(detector, images[:1], info, Form.FLOAT)
    verify_detector(supported(detector), model, images, engines=(Kernels.STOCK,))
    return VerifiedModel(model.proto, path, model.proto.ByteSize())
