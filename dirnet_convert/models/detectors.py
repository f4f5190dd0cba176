"""Detectors: torchvision's SSD and Faster R-CNN, built for images that are prepared already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from dirnet_convert.errors import DirnetError

# What torchvision's detectors learn from for one image: boxes (M, 4), labels (M,) from 1.
Target = dict[str, Tensor]
# What torchvision's detectors answer for one image: boxes (M, 4), labels (M,) from 1, scores (M,).
Detections = dict[str, Tensor]

COCO_CLASSES = 80

_FAMILIES = ("ssd", "fasterrcnn")
_RESNET18 = "fasterrcnn_resnet18_fpn"
_BACKGROUND = 1
# Enough for the statistics of a layer; an image has up to 1000 regions, which take much memory.
_REGIONS = 128
_NO_CATEGORY = ("__background__", "N/A")


@dataclass(frozen=True)
class DetectorInput:
    """The images that a detector takes: edge in pixels, mean and standard deviation per channel."""

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


# As torchvision's own builders set them; any other detector takes ImageNet's normalization.
_INPUTS = {
    "ssd300_vgg16": DetectorInput(300, (0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255)),
    "ssdlite320_mobilenet_v3_large": DetectorInput(320, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "fasterrcnn_mobilenet_v3_large_320_fpn": DetectorInput(320, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
_USUAL_INPUT = DetectorInput(640, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class PreparedInput(GeneralizedRCNNTransform):
    """torchvision's place for resizing and normalizing, where both are done: it passes everything on.

    Images (N, 3, H, W) are all of one size, and boxes stay in pixels of it.
    """

    def __init__(self) -> None:
        super().__init__(min_size=0, max_size=0, image_mean=[0.0], image_std=[1.0], size_divisible=1)

    def forward(
        self, images: Tensor | Sequence[Tensor], targets: list[Target] | None = None
    ) -> tuple[ImageList, list[Target] | None]:
        """Return the images as they are in torchvision's form, and the targets."""
        tensors = images if isinstance(images, Tensor) else torch.stack(list(images))
        return ImageList(tensors, [(tensors.shape[2], tensors.shape[3])] * len(tensors)), targets

    def postprocess(
        self, result: list[Detections], image_shapes: object, original_image_sizes: object
    ) -> list[Detections]:
        """Return the detections as they are."""
        return result


def detector_names() -> list[str]:
    """Return the names of the detectors that can be built."""
    listed = torchvision.models.list_models(module=torchvision.models.detection)
    return sorted([_RESNET18, *(name for name in listed if name.startswith(_FAMILIES))])


def other_detector_names() -> list[str]:
    """Return the names of torchvision's detectors that are neither SSD nor Faster R-CNN."""
    listed = torchvision.models.list_models(module=torchvision.models.detection)
    return [name for name in listed if not name.startswith(_FAMILIES)]


def detector_input(name: str) -> DetectorInput:
    """Return the images that the detector ``name`` is made for."""
    return _INPUTS.get(name, _USUAL_INPUT)


def published_weights(name: str) -> torchvision.models.WeightsEnum | None:
    """Return torchvision's weights of the detector ``name``, or None where it has none."""
    if name == _RESNET18:
        return None
    weights = torchvision.models.get_model_weights(name)
    return weights.DEFAULT if len(weights) else None


def published_rows(name: str) -> list[int]:
    """Return which of the published outputs are of a class of objects or the background, in order."""
    weights = published_weights(name)
    categories = weights.meta["categories"] if weights is not None else []
    return [row for row, category in enumerate(categories) if row == 0 or category not in _NO_CATEGORY]


def build_detector(name: str, classes: int) -> SSD | FasterRCNN:
    """Build the detector ``name`` for that many classes of objects, with random weights.

    Its batch norms are live ones: a binarized network's statistics are others than its teacher's.
    """
    outputs = classes + _BACKGROUND
    if name == _RESNET18:
        backbone = resnet_fpn_backbone(
            backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
        )
        detector = FasterRCNN(backbone, num_classes=outputs)
    else:
        detector = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=outputs
        )
    detector.transform = PreparedInput()
    return detector


def is_detector(network: nn.Module) -> bool:
    """Whether ``network`` is one of the two kinds of detector."""
    return isinstance(network, SSD | FasterRCNN)


def loss_names(detector: nn.Module) -> tuple[str, ...]:
    """Return the names of the losses that a detector gives in training mode."""
    if isinstance(detector, SSD):
        return ("bbox_regression", "classification")
    return ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")


class FeatureForward(nn.Module):
    """Runs every layer of a detector on images: of a Faster R-CNN, those of the box head on its likeliest
    regions."""

    def __init__(self, detector: SSD | FasterRCNN) -> None:
        super().__init__()
        self.detector = detector
        self.train(detector.training)

    def forward(self, images: Tensor) -> object:
        """Return what the last layers say of images (N, 3, H, W)."""
        features = self.detector.backbone(images)
        if isinstance(self.detector, SSD):
            return self.detector.head(list(features.values()))
        prepared, _ = self.detector.transform(images)
        heads = self.detector.roi_heads
        regions = [boxes[:_REGIONS] for boxes in self._proposals(prepared, features)]
        return heads.box_predictor(
            heads.box_head(heads.box_roi_pool(features, regions, prepared.image_sizes))
        )

    def _proposals(self, prepared: ImageList, features: dict[str, Tensor]) -> list[Tensor]:
        """Return the regions of each image, likeliest first, without targets in training mode too."""
        rpn = self.detector.rpn
        training, rpn.training = rpn.training, False
        try:
            return rpn(prepared, features)[0]
        finally:
            rpn.training = training


def check_detections(found: object, name: str) -> None:
    """Refuse what is no answer of a detector for one image; raises DirnetError."""
    if not (isinstance(found, list) and len(found) == 1 and {"boxes", "labels", "scores"} <= set(found[0])):
        raise DirnetError(f"{name} does not return boxes, labels and scores; it is no detector.")
