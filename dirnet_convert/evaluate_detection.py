"""Mean average precision of a detector over the test images of a data set."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dirnet_convert.data.source import ImageSource
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.models.detectors import Detections
from dirnet_convert.recipe import Task

if TYPE_CHECKING:
    from torchmetrics.detection import MeanAveragePrecision

# Images (N, 3, S, S) float32 in; for each its boxes (M, 4) in pixels of it, labels (M,) from 1, scores (M,).
DetectionPredictor = Callable[[Tensor], list[Detections]]


@dataclass(frozen=True)
class Precision:
    """Mean average precision over classes, at IoU 0.5 and averaged over IoU 0.5 to 0.95, in percent."""

    images: int
    map50_percent: float
    map_percent: float
    images_per_second: float


def evaluate_detector(
    predict: DetectionPredictor,
    source: ImageSource,
    batch_size: int = 8,
    limit: int = 0,
    on_images: Callable[[int], None] | None = None,
) -> Precision:
    """Return the precision of ``predict`` over the test images (``limit`` of them, evenly spread, if not 0).

    Boxes are compared in the pixels of the stretched image, which gives the IoU of the original one. Crowds
    and difficult objects count neither as found nor as missed. ``images_per_second`` is the detector's rate,
    without reading images and comparing boxes.

    Source: COCO's evaluation code (pycocotools), by torchmetrics' MeanAveragePrecision.

    Raises:
        UsageError: the data has no boxes or no test images, or torchmetrics is not installed.
        DirnetError: the detector's answer is not finite.
    """
    if source.info.task is not Task.DETECTION:
        raise UsageError(
            f"Data '{source.info.name}' has no boxes; evaluate a detector on --data voc or coco."
        )
    metric = _metric()
    images, seconds = 0, 0.0
    for batch, targets in source.test_batches(batch_size, limit):
        began = time.perf_counter()
        found = [{key: value.cpu() for key, value in one.items()} for one in predict(batch)]
        seconds += time.perf_counter() - began
        if not all(
            torch.isfinite(one["boxes"]).all() and torch.isfinite(one["scores"]).all() for one in found
        ):
            raise DirnetError(
                "The detector's answer is not finite; its weights or the normalization are broken."
            )
        metric.update(found, targets)
        images += len(batch)
        if on_images is not None:
            on_images(len(batch))
    if images == 0:
        raise UsageError(f"Data '{source.info.name}' has no test images.")
    values = metric.compute()
    # -1 says that no test image has an object.
    map50, average = (max(0.0, 100 * float(values[key])) for key in ("map_50", "map"))
    return Precision(images, map50, average, images / max(seconds, 1e-9))


def check_evaluation() -> None:
    """Refuse to evaluate where torchmetrics or pycocotools is missing; raises UsageError."""
    _metric()


def _metric() -> MeanAveragePrecision:
    try:
        from torchmetrics.detection import MeanAveragePrecision

        metric = MeanAveragePrecision(box_format="xyxy", iou_type="bbox", backend="pycocotools")
    except ImportError as error:
        raise UsageError(
            "Detectors are evaluated with torchmetrics and pycocotools, which are not installed: "
            "pip install 'dirnet-convert[detect]'."
        ) from error
    # As COCO does, the 100 likeliest boxes of an image count; a person need not hear of it at every image.
    metric.warn_on_many_detections = False
    return metric
