"""From the class logits and box codes of an SSD to its detections, in standard operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from torchvision.models.detection.ssd import SSD

from dirnet_convert.onnx_export.detector.geometry import Geometry
from dirnet_convert.onnx_export.detector.steps import Found, Steps, constant_boxes, decode, suppress


def ssd_detections(
    steps: Steps, detector: SSD, geometry: Geometry, class_logits: ir.Value, box_codes: ir.Value
) -> Found:
    """Append the decoding of class logits (1, A, K) and box codes (1, A, 4); return all that is left.

    Source: Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016, section 2; thresholds are the
    detector's.
    """
    anchors = np.concatenate(geometry.anchors)
    codes = steps.op("Squeeze", box_codes, steps.ints(0))
    boxes = decode(
        steps,
        codes,
        constant_boxes(steps, anchors),
        detector.box_coder,
        geometry.height,
        geometry.width,
    )
    shares = steps.op("Squeeze", steps.op("Softmax", class_logits, axis=-1), steps.ints(0))
    classes = detector.head.classification_head.num_columns
    by_class = steps.op("Transpose", steps.last(shares, 1, classes), perm=[1, 0])
    most = min(detector.topk_candidates, len(anchors))
    scores, places = steps.ops("TopK", 2, by_class, steps.ints(most), axis=-1)
    return suppress(
        steps,
        steps.op("Gather", boxes, places, axis=0),
        scores,
        iou=detector.nms_thresh,
        above=detector.score_thresh,
        most=detector.detections_per_img,
    )
