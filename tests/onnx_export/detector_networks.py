"""Small detectors with random weights whose scores lie far apart, so that few decisions are close."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.ssd import SSD
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from dirnet_convert.convert.detector import binarize_detector
from dirnet_convert.models.detectors import PreparedInput, build_detector
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions, Head
from dirnet_convert.runtime.detector import DetectorInfo

SEED = 7
SIZE = 64
CLASSES = ("cat", "dog", "bird")
WIDTH = 16


def info(size: int = SIZE) -> DetectorInfo:
    return DetectorInfo(CLASSES, size, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def images(count: int = 2, size: int = SIZE, seed: int = SEED) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def _unit(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Maps(nn.Module):
    """Three maps at strides 4, 8 and 16."""

    out_channels = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_unit(3, WIDTH, 2), _unit(WIDTH, WIDTH, 2))
        self.middle, self.last = _unit(WIDTH, WIDTH, 2), _unit(WIDTH, WIDTH, 2)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        first = self.stem(x)
        second = self.middle(first)
        return OrderedDict([("0", first), ("1", second), ("2", self.last(second))])


class Pyramid(nn.Module):
    """The maps and a top-down path over them."""

    out_channels = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fpn = Maps(), FeaturePyramidNetwork([WIDTH] * 3, WIDTH)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return self.fpn(self.body(x))


def ssd() -> SSD:
    torch.manual_seed(SEED)
    boxes = DefaultBoxGenerator([[2], [2, 3], [2]], scales=[0.1, 0.25, 0.5, 0.9])
    backbone = Maps()
    backbone.out_channels = [WIDTH] * 3
    detector = SSD(
        backbone,
        boxes,
        (SIZE, SIZE),
        len(CLASSES) + 1,
        topk_candidates=60,
        detections_per_img=200,
        score_thresh=0.1,
    )
    return spread(detector, SIZE)


def faster_rcnn() -> FasterRCNN:
    torch.manual_seed(SEED)
    anchors = AnchorGenerator(((12,), (24,), (48,)), ((0.5, 1.0, 2.0),) * 3)
    pool = MultiScaleRoIAlign(["0", "1", "2"], 3, 2, canonical_scale=32, canonical_level=3)
    detector = FasterRCNN(
        Pyramid(),
        rpn_anchor_generator=anchors,
        box_roi_pool=pool,
        box_head=TwoMLPHead(WIDTH * 9, 32),
        box_predictor=FastRCNNPredictor(32, len(CLASSES) + 1),
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_test=80,
        box_detections_per_img=40,
    )
    return spread(detector, SIZE)


def named(name: str, size: int) -> SSD | FasterRCNN:
    """One of torchvision's."""
    torch.manual_seed(SEED)
    return spread(build_detector(name, len(CLASSES)), size)


def spread(detector: SSD | FasterRCNN, size: int) -> SSD | FasterRCNN:
    """Give batch norms real statistics, and the heads weights that tell images and places apart."""
    detector.transform = PreparedInput()
    settle(detector, size)
    if isinstance(detector, SSD):
        heads = [detector.head.classification_head, detector.head.regression_head]
    else:
        predictor = detector.roi_heads.box_predictor
        heads = [detector.rpn.head, predictor.cls_score, predictor.bbox_pred]
        nn.init.normal_(detector.roi_heads.box_head.fc6.weight, std=0.05)
    with torch.no_grad():
        for head in heads:
            for layer in head.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    fan = layer.weight[0].numel()
                    nn.init.normal_(layer.weight, std=1.5 / fan**0.5)
    return detector.eval()


def settle(detector: nn.Module, size: int) -> None:
    """Measure the batch norms' statistics on a few images."""
    detector.train()
    with torch.no_grad():
        for step in range(20):
            detector.backbone(images(2, size, step))
    detector.eval()


def binarized(
    detector: SSD | FasterRCNN, size: int = SIZE, head: Head = Head.KEEP, binarize: tuple[str, ...] = ()
) -> SSD | FasterRCNN:
    torch.manual_seed(SEED)
    options = ConvertOptions(head=head, binarize=binarize)
    student = binarize_detector(detector, images(1, size), options, EstimatorOptions()).student
    settle(student, size)
    return student


BUILDERS = {"ssd": ssd, "faster_rcnn": faster_rcnn}
