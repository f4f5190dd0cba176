"""The fixed sizes of a detector: its image, its anchors, its feature maps."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD

from dirnet_convert.errors import UsageError


@dataclass(frozen=True)
class Geometry:
    """What follows from the size of the image alone.

    ``anchors``: (A, 4) xyxy in pixels for each level; ``maps``: each level's (channels, height, width) by
    name.
    """

    height: int
    width: int
    anchors: tuple[np.ndarray, ...]
    maps: dict[str, tuple[int, int, int]]


def geometry_of(detector: SSD | FasterRCNN, image: Tensor) -> Geometry:
    """Return the geometry of ``detector`` for images like ``image`` (1, C, H, W).

    Raises:
        UsageError: the detector would resize, pad or normalize such an image.
    """
    height, width = image.shape[-2:]
    with torch.no_grad():
        seen = detector.transform([image[0]])[0].tensors
        if seen.shape != image.shape or not torch.equal(seen, image):
            raise UsageError(
                f"The detector changes images of {height}x{width} itself (to {seen.shape[-2]}x"
                f"{seen.shape[-1]}, or by normalizing them); export it for images that it takes as they are."
            )
        maps = detector.backbone(image)
        maps = OrderedDict([("0", maps)]) if isinstance(maps, Tensor) else maps
        generator = detector.anchor_generator if isinstance(detector, SSD) else detector.rpn.anchor_generator
        (anchors,) = generator(ImageList(image, [(height, width)]), list(maps.values()))
    sizes = {name: tuple(level.shape[-3:]) for name, level in maps.items()}
    counts = [
        here * level[1] * level[2]
        for here, level in zip(generator.num_anchors_per_location(), sizes.values(), strict=True)
    ]
    parts = tuple(part.numpy().astype(np.float32) for part in anchors.split(counts))
    return Geometry(height, width, parts, sizes)
