"""Detectors at work: an image in, boxes in its own pixels out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.runtime.session import Kernels, load_session

if TYPE_CHECKING:
    import onnxruntime
    from torch import Tensor

OUTPUT_NAMES = ("boxes", "labels", "scores")
TASK_KEY, DETECTION_TASK = "dirnet.task", "detection"
_NAMES_KEY, _SIZE_KEY = "dirnet.class_names", "dirnet.input_size"
_MEAN_KEY, _STD_KEY = "dirnet.mean", "dirnet.std"

# Pixels (1, 3, H, W) float32 in; boxes (M, 4) xyxy in those pixels, labels (M) from 1 and scores (M) out.
Answer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class DetectorInfo:
    """What a detector takes and finds: label k is ``class_names[k - 1]``; sizes in pixels."""

    class_names: tuple[str, ...]
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def name(self, label: int) -> str:
        """Return the name of ``label``, or its number where it has none."""
        return self.class_names[label - 1] if 1 <= label <= len(self.class_names) else f"class {label}"


def info_entries(info: DetectorInfo) -> dict[str, str]:
    """Return ``info`` as a model's metadata."""
    return {
        TASK_KEY: DETECTION_TASK,
        _NAMES_KEY: json.dumps(info.class_names),
        _SIZE_KEY: json.dumps((info.height, info.width)),
        _MEAN_KEY: json.dumps(info.mean),
        _STD_KEY: json.dumps(info.std),
    }


def _info(entries: dict[str, str]) -> DetectorInfo:
    names, size, mean, std = (
        json.loads(entries[key]) for key in (_NAMES_KEY, _SIZE_KEY, _MEAN_KEY, _STD_KEY)
    )
    height, width = size
    return DetectorInfo(tuple(names), height, width, tuple(mean), tuple(std))


@dataclass(frozen=True)
class Detections:
    """The objects of one image, likeliest first.

    ``boxes``: (M, 4) float32 x1, y1, x2, y2 in pixels; ``labels``: (M) int64; ``scores``: (M) float32.
    """

    boxes: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    scores: np.ndarray

    def above(self, threshold: float) -> Detections:
        """Return those with a score of at least ``threshold``."""
        kept = np.flatnonzero(self.scores >= threshold)
        names = tuple(self.names[k] for k in kept)
        return Detections(self.boxes[kept], self.labels[kept], names, self.scores[kept])


class Detector:
    """Anything that answers with boxes, and how an image is prepared for it."""

    def __init__(self, answer: Answer, info: DetectorInfo) -> None:
        self.info = info
        self._answer = answer

    def detect(self, image: Image.Image | np.ndarray) -> Detections:
        """Return the objects of an image or of its uint8 pixels (H, W, 3), boxes in the image's own pixels.

        Raises:
            UsageError: the array is no image.
        """
        picture = _picture(image)
        found = self.run(self.prepare(picture))
        scale = np.array([picture.width / self.info.width, picture.height / self.info.height] * 2, np.float32)
        return Detections(found.boxes * scale, found.labels, found.names, found.scores)

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Return ``image``, stretched to the detector's size and normalized, as float32 (1, 3, H, W)."""
        size = (self.info.width, self.info.height)
        stretched = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
        pixels = np.asarray(stretched, np.float32).transpose(2, 0, 1) / np.float32(255)
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (self.info.mean, self.info.std))
        return np.ascontiguousarray(((pixels - mean) / std)[None])

    def run(self, pixels: np.ndarray) -> Detections:
        """Return the objects of one prepared image (1, 3, H, W), boxes in pixels of (H, W)."""
        boxes, labels, scores = self._answer(pixels)
        names = tuple(self.info.name(label) for label in labels.tolist())
        return Detections(boxes, labels, names, scores)

    def predict_tensors(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return boxes, labels and scores for each of ``images`` (N, 3, H, W), as torchvision does."""
        import torch

        found = [self._answer(image.numpy()) for image in images.cpu().split(1)]
        return [dict(zip(OUTPUT_NAMES, map(torch.from_numpy, one), strict=True)) for one in found]


def load_detector(
    path: Path | str | bytes, *, threads: int | None = None, kernels: Kernels = Kernels.DIRNET
) -> Detector:
    """Open a detector's ONNX file; ``threads`` and ``kernels`` as load_session takes them.

    Raises:
        UsageError: there is no such file, or it is no exported detector.
        DirnetError: as load_session does, or the file's own description is damaged.
    """
    session = load_session(path, threads=threads, kernels=kernels)
    name = "The model" if isinstance(path, bytes) else str(path)
    entries = session.get_modelmeta().custom_metadata_map
    if entries.get(TASK_KEY) != DETECTION_TASK:
        raise UsageError(
            f"{name} gives no boxes: it is no detector that dirnet exported; name the model.onnx of one."
        )
    try:
        info = _info(entries)
    except (KeyError, ValueError, TypeError) as error:
        raise DirnetError(
            f"{name} does not say what it finds and in which images; make it anew with 'dirnet export'."
        ) from error
    return Detector(_session_answer(session), info)


def _session_answer(session: onnxruntime.InferenceSession) -> Answer:
    entry = session.get_inputs()[0].name

    def answer(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return tuple(session.run(list(OUTPUT_NAMES), {entry: pixels}))

    return answer


def _picture(image: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UsageError(
            f"An image is expected as uint8 (H, W, 3), not {image.dtype} {tuple(image.shape)}; convert it."
        )
    return Image.fromarray(image)
