"""What a Faster R-CNN does between and after its two stages, in standard operators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from torchvision.models.detection import FasterRCNN
from torchvision.ops import MultiScaleRoIAlign

from dirnet_convert.onnx_export.detector.geometry import Geometry
from dirnet_convert.onnx_export.detector.parts import ROI_FEATURES
from dirnet_convert.onnx_export.detector.steps import (
    Boxes,
    Found,
    Steps,
    boxes_of,
    constant_boxes,
    decode,
    picked,
    suppress,
    without_small,
)
from dirnet_convert.onnx_export.ir_tools import dims

PROPOSALS = "proposals"


# The edge in pixels below which a detection is dropped; torchvision's, which has no name for it.
SMALLEST_DETECTION = 1e-2
# Scores are at least 0, so that this lets all pass but what was dropped before.
_ANY_SCORE = -0.5


def proposal_boxes(level: int) -> str:
    """Return the name of the boxes that are left on ``level``."""
    return f"proposals.{level}.boxes"


def proposal_scores(level: int) -> str:
    """Return the name of the scores that are left on ``level``."""
    return f"proposals.{level}.scores"


def proposals(
    steps: Steps,
    detector: FasterRCNN,
    geometry: Geometry,
    objectness: Sequence[ir.Value],
    box_codes: Sequence[ir.Value],
) -> ir.Value:
    """Append the choice of regions (R, 4) from objectness (1, A) and box codes (1, A, 4) of each level.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, section 3; Lin et al., Feature Pyramid Networks, 2017.
    """
    rpn = detector.rpn
    found = []
    for level, anchors in enumerate(geometry.anchors):
        logits, codes = objectness[level], box_codes[level]
        most = min(rpn.pre_nms_top_n(), len(anchors))
        top, places = steps.ops(
            "TopK", 2, steps.op("Squeeze", logits, steps.ints(0)), steps.ints(most), axis=0
        )
        chosen = steps.op("Gather", steps.op("Squeeze", codes, steps.ints(0)), places, axis=0)
        starts = picked(steps, constant_boxes(steps, anchors), places)
        boxes = decode(steps, chosen, starts, rpn.box_coder, geometry.height, geometry.width)
        scores = without_small(steps, steps.op("Sigmoid", top), boxes, rpn.min_size)
        if rpn.score_thresh > 0:
            high = steps.op("GreaterOrEqual", scores, steps.constant(rpn.score_thresh))
            scores = steps.op("Where", high, scores, steps.constant(-1.0))
        one = steps.ints(0)
        found.append(
            suppress(
                steps,
                steps.op("Unsqueeze", boxes, one),
                steps.op("Unsqueeze", scores, one),
                iou=rpn.nms_thresh,
                above=_ANY_SCORE,
                most=rpn.post_nms_top_n(),
                names=(proposal_boxes(level), proposal_scores(level)),
            )
        )
    boxes = steps.op("Concat", *(level.boxes for level in found), axis=0)
    scores = steps.op("Concat", *(level.scores for level in found), axis=0)
    best = steps.best(scores, rpn.post_nms_top_n())
    return steps.op("Gather", boxes, best, axis=0)


def region_features(
    steps: Steps, pool: MultiScaleRoIAlign, geometry: Geometry, maps: dict[str, ir.Value], regions: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Append the pooling of ``regions`` (R, 4) from the map of their level; return features and regions.

    Both come level by level, not in the order of ``regions``.

    Source: Lin et al., Feature Pyramid Networks, CVPR 2017, equation 1; He et al., Mask R-CNN, ICCV 2017.
    """
    scales = map_scales(pool, geometry)
    names = pooled_names(pool, geometry)
    edges = level_edges(pool, scales)
    size = boxes_of(steps, regions).size
    edge = steps.op("Sqrt", steps.joined("Mul", size))
    features, ordered = [], []
    for number, name in enumerate(names):
        inside = steps.op("GreaterOrEqual", edge, steps.constant(edges[number]))
        below = steps.op("Less", edge, steps.constant(edges[number + 1]))
        places = steps.op("Squeeze", steps.op("NonZero", steps.op("And", inside, below)), steps.ints(0))
        here = steps.op("Gather", regions, places, axis=0)
        first_image = steps.op(
            "ConstantOfShape", steps.op("Shape", places), value=ir.tensor(np.zeros(1, np.int64))
        )
        height, width = pool.output_size
        features.append(
            steps.op(
                "RoiAlign",
                maps[name],
                here,
                first_image,
                mode="avg",
                coordinate_transformation_mode="output_half_pixel",
                output_height=height,
                output_width=width,
                sampling_ratio=max(pool.sampling_ratio, 0),
                spatial_scale=scales[number],
            )
        )
        ordered.append(here)
    return (
        steps.op("Concat", *features, name=ROI_FEATURES, axis=0),
        steps.op("Concat", *ordered, name=PROPOSALS, axis=0),
    )


def pooled_names(pool: MultiScaleRoIAlign, geometry: Geometry) -> tuple[str, ...]:
    """Return the maps that regions are pooled from: those of ``pool`` that the backbone has."""
    return tuple(name for name in geometry.maps if name in pool.featmap_names)


def map_scales(pool: MultiScaleRoIAlign, geometry: Geometry) -> tuple[float, ...]:
    """Return the scale of each pooled map, a power of two."""
    return tuple(
        2.0 ** round(math.log2(geometry.maps[name][1] / geometry.height))
        for name in pooled_names(pool, geometry)
    )


def level_edges(pool: MultiScaleRoIAlign, scales: Sequence[float]) -> tuple[float, ...]:
    """Return where the levels begin and end: sqrt(area) in pixels, first 0, last infinite."""
    lowest = round(-math.log2(scales[0]))
    # torchvision's guard against rounding, in units of levels.
    guard = 1e-6
    inner = [
        pool.canonical_scale * 2.0 ** (lowest + number - pool.canonical_level - guard)
        for number in range(1, len(scales))
    ]
    return (0.0, *inner, math.inf)


def region_detections(
    steps: Steps,
    detector: FasterRCNN,
    geometry: Geometry,
    class_logits: ir.Value,
    box_codes: ir.Value,
    regions: ir.Value,
) -> Found:
    """Append the decoding of class logits (R, K) and box codes (R, 4 K) of ``regions`` (R, 4).

    Source: Ren et al., Faster R-CNN, NeurIPS 2015; thresholds are the detector's.
    """
    heads = detector.roi_heads
    # An empty tensor leaves no axis but the first one open.
    codes = steps.op("Reshape", box_codes, steps.ints(-1, dims(box_codes)[1] // 4, 4))
    wide = boxes_of(steps, steps.op("Unsqueeze", regions, steps.ints(1)))
    boxes = decode(
        steps, codes, Boxes(wide.centre, wide.size), heads.box_coder, geometry.height, geometry.width
    )
    shares = steps.op("Softmax", class_logits, axis=-1)
    # The first class is the background.
    after_first = (steps.ints(1), steps.ints(np.iinfo(np.int64).max), steps.ints(1))
    boxes = steps.op("Transpose", steps.op("Slice", boxes, *after_first), perm=[1, 0, 2])
    scores = steps.op("Transpose", steps.op("Slice", shares, *after_first), perm=[1, 0])
    return suppress(
        steps,
        boxes,
        without_small(steps, scores, boxes, SMALLEST_DETECTION),
        iou=heads.nms_thresh,
        above=heads.score_thresh,
        most=heads.detections_per_img,
    )
