"""Both networks of a run as ONNX files: classifiers with their logits, detectors with their boxes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dirnet_convert.data.source import ImageSource
from dirnet_convert.errors import UsageError
from dirnet_convert.onnx_export.checked import CheckedExport, VerifiedModel, verified_export, verified_float
from dirnet_convert.onnx_export.detector.export import verified_detector, verified_float_detector
from dirnet_convert.onnx_export.detector.model import Form, detector_model
from dirnet_convert.onnx_export.exporter import export_float_onnx, write_model
from dirnet_convert.onnx_export.rest_export import verified_int8_rest
from dirnet_convert.recipe import Rest, Task
from dirnet_convert.run import RunConfig
from dirnet_convert.runtime.detector import DetectorInfo


@dataclass(frozen=True)
class VerifiedNetworks:
    """A run's binarized and its FP32 network, both compared with PyTorch and neither written yet."""

    student: VerifiedModel[CheckedExport]
    teacher: VerifiedModel[int]

    def write(self) -> CheckedExport:
        """Write both files, each whole or not at all.

        Raises:
            DirnetError: a folder cannot be written.
        """
        # First the one that a new export seldom changes: should it not fit, the other one stays, too.
        self.teacher.write()
        return self.student.write()


def verified_networks(
    student: nn.Module,
    teacher: nn.Module,
    config: RunConfig,
    source: ImageSource,
    path: Path,
    teacher_path: Path,
    *,
    verified_images: int,
    rest: Rest = Rest.FLOAT,
) -> VerifiedNetworks:
    """Return a run's binarized and its FP32 network, each compared with PyTorch on images of ``source``.

    Raises:
        ExportMismatch: a file would compute something else.
        UsageError: ``rest`` is INT8 and the network a detector.
        DirnetError: PyTorch cannot export a network.
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
        return VerifiedNetworks(
            verified_detector(student, images, info, path),
            verified_float_detector(teacher, images, info, teacher_path),
        )
    exported: VerifiedModel[CheckedExport]
    if rest is Rest.INT8:
        exported = verified_int8_rest(student, images, source, path, seed=seed)
    else:
        exported = verified_export(student, images, path)
    return VerifiedNetworks(exported, verified_float(teacher, images, teacher_path))


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
