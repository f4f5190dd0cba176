"""The network parts of a detector as modules that take and return tensors, under the detector's own names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.ssd import SSD

ROI_FEATURES = "roi_features"
IMAGE = "input"


class RawSsd(nn.Module):
    """Images (1, C, H, W) to class logits (1, A, K) and box codes (1, A, 4) of A anchors."""

    input_names = (IMAGE,)

    def __init__(self, detector: SSD) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head
        self.output_names = ("class_logits", "box_codes")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (1, C, H, W) to (class logits, box codes)."""
        answers = self.head(list(_maps(self.backbone(images)).values()))
        return answers["cls_logits"], answers["bbox_regression"]


class _RpnHead(nn.Module):
    """Only the trained part of the region proposal network."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return self.head(maps)


class _BoxHead(nn.Module):
    """Only the trained part of the second stage."""

    def __init__(self, detector: FasterRCNN) -> None:
        super().__init__()
        self.box_head, self.box_predictor = detector.roi_heads.box_head, detector.roi_heads.box_predictor

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.box_predictor(self.box_head(features))


class ImagePart(nn.Module):
    """The first stage: images (1, C, H, W) to feature maps, then objectness and box codes per level."""

    input_names = (IMAGE,)

    def __init__(self, detector: FasterRCNN, pooled: Sequence[str], levels: int) -> None:
        super().__init__()
        self.backbone, self.rpn = detector.backbone, _RpnHead(detector.rpn.head)
        self.pooled = tuple(pooled)
        self.output_names = (
            *(f"features.{name}" for name in pooled),
            *(f"objectness.{level}" for level in range(levels)),
            *(f"box_codes.{level}" for level in range(levels)),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (1, C, H, W) to maps (1, D, h, w), objectness (1, A) and box codes (1, A, 4)."""
        return _first_stage(self.backbone, self.rpn, self.pooled, images)


class BoxPart(nn.Module):
    """The second stage: features of regions (R, D, 7, 7) to class logits (R, K) and box codes (R, 4 K)."""

    input_names = (ROI_FEATURES,)
    output_names = ("class_logits", "box_codes")

    def __init__(self, detector: FasterRCNN) -> None:
        super().__init__()
        self.roi_heads = _BoxHead(detector)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (R, D, 7, 7) to (class logits, box codes)."""
        return self.roi_heads(features)


class RawFasterRcnn(nn.Module):
    """Both stages side by side: what lies between them, the choice of regions, is given from outside."""

    input_names = (IMAGE, ROI_FEATURES)

    def __init__(self, image_part: ImagePart, box_part: BoxPart) -> None:
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = image_part.backbone, image_part.rpn, box_part.roi_heads
        self.pooled = image_part.pooled
        self.output_names = (*image_part.output_names, *box_part.output_names)

    def forward(self, images: Tensor, features: Tensor) -> tuple[Tensor, ...]:
        """Map images (1, C, H, W) and regions' features (R, D, 7, 7) to the outputs of both parts."""
        return (*_first_stage(self.backbone, self.rpn, self.pooled, images), *self.roi_heads(features))


def _first_stage(
    backbone: nn.Module, rpn: nn.Module, pooled: Sequence[str], images: Tensor
) -> tuple[Tensor, ...]:
    maps = _maps(backbone(images))
    objectness, codes = rpn(list(maps.values()))
    return (
        *(maps[name] for name in pooled),
        *(_anchors_last(level, 1).flatten(1) for level in objectness),
        *(_anchors_last(level, 4) for level in codes),
    )


def _maps(answer: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    return OrderedDict([("0", answer)]) if isinstance(answer, Tensor) else answer


def _anchors_last(level: Tensor, columns: int) -> Tensor:
    """Return (N, A * columns, H, W) as (N, H * W * A, columns), the order in which anchors are made."""
    return level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, columns)
