"""Images with boxes: what annotations become, and how an image and its boxes take a network's size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from dirnet_convert.data.source import DataInfo
from dirnet_convert.recipe import AugmentKind

# boxes (M, 4) as x1, y1, x2, y2 in pixels of the network's input, labels (M,) from 1, iscrowd (M,) 0 or 1.
Target = dict[str, Tensor]

# Edge in pixels above which a box is trained on.
SMALLEST_TRAINED = 1.0
# What surrounds a photograph that was made smaller, and by how much at most.
GREY = 127
LARGEST_ZOOM_OUT = 2.0


@dataclass(frozen=True)
class Annotation:
    """One object: its box in pixels of the file's image, from 0; its class, from 0.

    ``excused`` marks a crowd or a difficult object: finding it counts neither for nor against a detector.
    """

    box: tuple[float, float, float, float]
    label: int
    excused: bool = False

    @property
    def is_degenerate(self) -> bool:
        """Whether the box has no area."""
        left, top, right, bottom = self.box
        return not (right > left and bottom > top)


@dataclass(frozen=True)
class BoxSplit:
    """One split: image files and their objects, in step; ``degenerate`` boxes were left out."""

    paths: tuple[Path, ...] = ()
    objects: tuple[tuple[Annotation, ...], ...] = ()
    degenerate: int = 0


def box_split(images: Iterable[tuple[Path, list[Annotation]]]) -> BoxSplit:
    """Return the split of ``images``, without boxes that have no area."""
    paths, objects, degenerate = [], [], 0
    for path, found in images:
        good = tuple(item for item in found if not item.is_degenerate)
        degenerate += len(found) - len(good)
        paths.append(path)
        objects.append(good)
    return BoxSplit(tuple(paths), tuple(objects), degenerate)


def prepared(
    image: Image.Image, objects: tuple[Annotation, ...], size: int, augment: AugmentKind | None
) -> tuple[Tensor, Target]:
    """Return an RGB image as uint8 (3, S, S) and its target; ``augment`` None is the test transform."""
    boxes = torch.tensor([item.box for item in objects], dtype=torch.float32).view(-1, 4)
    sample = {"boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=image.size[::-1])}
    labels = torch.tensor([item.label + 1 for item in objects], dtype=torch.int64)
    excused = torch.tensor([int(item.excused) for item in objects], dtype=torch.int64)
    pixels, sample = _transform(size, augment)(image, sample)
    boxes = sample["boxes"].as_subclass(Tensor)
    # A crop, or an annotation beyond the image's edge, may leave nothing of a box; a sliver teaches nothing.
    kept = (boxes[:, 2:] - boxes[:, :2] > (0.0 if augment is None else SMALLEST_TRAINED)).all(dim=1)
    return pixels, {"boxes": boxes[kept], "labels": labels[kept], "iscrowd": excused[kept]}


def _transform(size: int, augment: AugmentKind | None) -> v2.Transform:
    """Return the transform of a photograph and its boxes to (size, size).

    Both sides become ``size``: a detector's input is fixed, and IoU is the same in stretched images.
    FLIP_CROP crops to a part that overlaps its objects and mirrors; RANDOM_RESIZED_CROP makes objects smaller
    before.

    Source: Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, section 2.2 (the crops by overlap).
    """
    match augment:
        case None | AugmentKind.NONE:
            change: list[v2.Transform] = []
        case AugmentKind.FLIP:
            change = [v2.RandomHorizontalFlip()]
        case AugmentKind.FLIP_CROP:
            change = [v2.RandomIoUCrop(), v2.RandomHorizontalFlip()]
        case AugmentKind.RANDOM_RESIZED_CROP | AugmentKind.AUTO:
            smaller = v2.RandomZoomOut(fill=GREY, side_range=(1.0, LARGEST_ZOOM_OUT))
            change = [smaller, v2.RandomIoUCrop(), v2.RandomHorizontalFlip()]
    clamp = v2.ClampBoundingBoxes()
    return v2.Compose([clamp, *change, v2.Resize((size, size)), v2.PILToTensor(), clamp])


def prepare_stretched(image: Image.Image, info: DataInfo) -> Tensor:
    """Return an image as a detector takes it: both sides stretched, normalized, float32 (1, 3, S, S)."""
    pixels, _ = prepared(image.convert("RGB"), (), info.image_size, None)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (info.mean, info.std))
    return pixels[None].to(torch.float32).div_(255.0).sub_(mean).div_(std)


def without_excused(target: Target) -> Target:
    """Return what a detector is trained to find: the objects that are no crowd and not difficult."""
    wanted = target["iscrowd"] == 0
    return {"boxes": target["boxes"][wanted], "labels": target["labels"][wanted]}
