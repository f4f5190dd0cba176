"""Both networks of a run as ONNX files: classifiers with their logits, detectors with their boxes."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from dirnet_convert.data.source import ImageSource
from dirnet_convert.errors import UsageError
from dirnet_convert.onnx_export.checked import CheckedExport, export_checked, export_float_checked
from dirnet_convert.onnx_export.detector.export import export_detector_checked, export_float_detector_checked
from dirnet_convert.onnx_export.detector.model import Form, detector_model
from dirnet_convert.onnx_export.exporter import export_float_onnx, write_model
from dirnet_convert.onnx_export.rest_export import export_int8_rest
from dirnet_convert.recipe import Rest, Task
from dirnet_convert.run import RunConfig
from dirnet_convert.runtime.detector import DetectorInfo


def export_networks(
    student: nn.Module,
    teacher: nn.Module,
    config: RunConfig,
    source: ImageSource,
    path: Path,
    teacher_path: Path,
    *,
    verified_images: int,
    rest: Rest = Rest.FLOAT,
) -> CheckedExport:
    """Write a run's binarized and its FP32 network, each compared with PyTorch on images of ``source``.

    Raises:
        ExportMismatch: a file would compute something else; it is not written.
        UsageError: ``rest`` is INT8 and the network a detector.
        DirnetError: PyTorch cannot export a network, or a folder cannot be written.
    """
    if config.task is Task.DETECTION and rest is Rest.INT8:
        raise UsageError(
            "--rest int8 is for classifiers: a detector's head computes coordinates, and what 256 steps cost "
            "them has not been measured; leave --rest out."
        )
    seed = config.recipe.seed
    images = source.calibration_images(verified_images, seed)
    if config.task is Task.DETECTION:
        info = detector_info(config)
        detector = export_detector_checked(student, images, info, path)
        export_float_detector_checked(teacher, images, info, teacher_path)
        return detector
    if rest is Rest.INT8:
        exported: CheckedExport = export_int8_rest(student, images, source, path, seed=seed)
    else:
        exported = export_checked(student, images, path)
    export_float_checked(teacher, images, teacher_path)
    return exported


def export_teacher(teacher: nn.Module, config: RunConfig, image: Tensor, path: Path) -> int:
    """Write a run's FP32 network alone, unverified, for an image (1, C, H, W); return the size in bytes.

    Raises:
        DirnetError: PyTorch cannot export the network, or the folder cannot be written.
    """
    if config.task is Task.DETECTION:
        return write_model(detector_model(teacher, image, detector_info(config), Form.FLOAT).proto, path)
    return export_float_onnx(teacher, image, path)


def detector_info(config: RunConfig) -> DetectorInfo:
    """Return what a detector's file says of itself."""
    return DetectorInfo(config.class_names, config.image_size, config.image_size, config.mean, config.std)
