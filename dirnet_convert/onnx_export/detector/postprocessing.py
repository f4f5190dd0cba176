"""Checks what lies between and behind the layers: an engine's choices against torchvision's own arithmetic.

Every step is given what the engine itself fed to it, so that no rounding adds up and each difference points
at its step.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.ssd import SSD
from torchvision.ops import clip_boxes_to_image

from dirnet_convert.onnx_export.detector.faster_rcnn import (
    PROPOSALS,
    SMALLEST_DETECTION,
    level_edges,
    map_scales,
    pooled_names,
    proposal_boxes,
    proposal_scores,
)
from dirnet_convert.onnx_export.detector.geometry import Geometry
from dirnet_convert.onnx_export.detector.parts import ROI_FEATURES
from dirnet_convert.onnx_export.detector.selection import (
    SCORE_ROUNDING,
    Candidates,
    Chosen,
    Comparison,
    compare_choice,
)
from dirnet_convert.onnx_export.engine_check import relative_error
from dirnet_convert.onnx_export.verify_report import ExportMismatch

# Bilinear samples of a map, averaged, against the same in another order; relative to the root mean square.
_POOLING_ROUNDING = 1e-3
# A level begins where log2 passes a whole number; next to it float32 decides by its last places.
_LEVEL_ROUNDING = 1e-6


@dataclass(frozen=True)
class StepErrors:
    """The worst that was seen behind the layers: coordinates in pixels, scores, pooled features."""

    box: float = 0.0
    score: float = 0.0
    pooling: float = 0.0

    def worst(self, other: StepErrors) -> StepErrors:
        """Return the larger of each."""
        return StepErrors(
            max(self.box, other.box), max(self.score, other.score), max(self.pooling, other.pooling)
        )


def exposed_names(detector: SSD | FasterRCNN, geometry: Geometry) -> tuple[str, ...]:
    """Return the tensors inside a model that ``check_steps`` looks at, besides the layers' outputs."""
    if isinstance(detector, SSD):
        return ()
    levels = range(len(geometry.anchors))
    chosen = [name(level) for level in levels for name in (proposal_boxes, proposal_scores)]
    return (*chosen, PROPOSALS, ROI_FEATURES)


def check_steps(
    detector: SSD | FasterRCNN, geometry: Geometry, values: dict[str, np.ndarray], where: str
) -> StepErrors:
    """Compare one image's ``values`` by name with torchvision's steps; ``where`` names the engine.

    Raises:
        ExportMismatch: a step yields something else; it is named.
    """
    tensors = {name: torch.from_numpy(value) for name, value in values.items()}
    if isinstance(detector, SSD):
        return _ssd(detector, geometry, tensors, where)
    errors = _proposals(detector, geometry, tensors, where)
    pooling = _pooling(detector, geometry, tensors, where)
    errors = errors.worst(StepErrors(pooling=pooling))
    return errors.worst(_regions(detector, geometry, tensors, where))


def _ssd(detector: SSD, geometry: Geometry, tensors: dict[str, Tensor], where: str) -> StepErrors:
    anchors = torch.from_numpy(np.concatenate(geometry.anchors))
    boxes = detector.box_coder.decode_single(tensors["box_codes"][0], anchors)
    boxes = clip_boxes_to_image(boxes, (geometry.height, geometry.width))
    scores = tensors["class_logits"][0].softmax(-1)[:, 1:]
    lowest = _last_of_best(scores.T, detector.topk_candidates)
    ranks = _Standing(
        scores > detector.score_thresh - SCORE_ROUNDING, scores > detector.score_thresh + SCORE_ROUNDING
    )
    ranks = ranks.both(scores >= lowest - SCORE_ROUNDING, scores > lowest + SCORE_ROUNDING)
    candidates = _by_class(boxes[:, None].expand(-1, scores.shape[1], -1), scores, ranks)
    return _checked(
        compare_choice(
            candidates,
            _detections(tensors),
            iou=detector.nms_thresh,
            most=detector.detections_per_img,
            longest_edge=max(geometry.height, geometry.width),
        ),
        "the detections",
        where,
    )


def _proposals(
    detector: FasterRCNN, geometry: Geometry, tensors: dict[str, Tensor], where: str
) -> StepErrors:
    rpn, most = detector.rpn, detector.rpn.post_nms_top_n()
    errors = StepErrors()
    for level, anchors in enumerate(geometry.anchors):
        logits, codes = tensors[f"objectness.{level}"][0], tensors[f"box_codes.{level}"][0]
        scores = logits.sigmoid()
        # Ranked by logits, which are the engine's own: nothing is rounded.
        lowest = _last_of_best(logits[None], rpn.pre_nms_top_n())
        places = (logits >= lowest).nonzero().flatten()
        boxes = rpn.box_coder.decode_single(codes[places], torch.from_numpy(anchors)[places])
        boxes = clip_boxes_to_image(boxes, (geometry.height, geometry.width))
        standing = _large(boxes, rpn.min_size, geometry)
        scores, ranked = scores[places], logits[places]
        standing = standing.both(torch.ones_like(ranked, dtype=torch.bool), ranked > lowest)
        if rpn.score_thresh > 0:
            limit = rpn.score_thresh
            standing = standing.both(scores >= limit - SCORE_ROUNDING, scores > limit + SCORE_ROUNDING)
        groups = torch.zeros(len(places), dtype=torch.int64)
        candidates = Candidates(boxes, groups, scores, standing.possible, standing.certain)
        chosen = tensors[proposal_boxes(level)], tensors[proposal_scores(level)]
        compared = compare_choice(
            candidates,
            Chosen(chosen[0], torch.zeros(len(chosen[1]), dtype=torch.int64), chosen[1]),
            iou=rpn.nms_thresh,
            most=most,
            longest_edge=max(geometry.height, geometry.width),
        )
        errors = errors.worst(_checked(compared, f"the proposals of level {level}", where))
    _check_best(tensors, len(geometry.anchors), most, where)
    return errors


def _check_best(tensors: dict[str, Tensor], levels: int, most: int, where: str) -> None:
    """Check that the proposals are the best of all levels; they are copies, so that nothing is rounded."""
    boxes = torch.cat([tensors[proposal_boxes(level)] for level in range(levels)])
    scores = torch.cat([tensors[proposal_scores(level)] for level in range(levels)])
    lowest = _last_of_best(scores[None], most)
    allowed = {tuple(row) for row in boxes[scores >= lowest].tolist()}
    needed = {tuple(row) for row in boxes[scores > lowest].tolist()}
    got = {tuple(row) for row in tensors[PROPOSALS].tolist()}
    if len(tensors[PROPOSALS]) != min(most, len(scores)) or not needed <= got <= allowed:
        raise ExportMismatch("the proposals", f"they are not the {most} best of all levels {where}")


def _pooling(detector: FasterRCNN, geometry: Geometry, tensors: dict[str, Tensor], where: str) -> float:
    # A copy, since pooling keeps the scales of the first image that it sees.
    pool = copy.deepcopy(detector.roi_heads.box_roi_pool)
    pool.scales = pool.map_levels = None
    regions = tensors[PROPOSALS]
    if not len(regions):
        return 0.0
    maps = {name: tensors[f"features.{name}"] for name in pooled_names(pool, geometry)}
    own = pool(maps, [regions], [(geometry.height, geometry.width)])
    size = (regions[:, 2:] - regions[:, :2]).double()
    edge = size.prod(1).sqrt()
    settled = torch.ones(len(regions), dtype=torch.bool)
    for border in level_edges(pool, map_scales(pool, geometry))[1:-1]:
        settled &= (edge / border - 1).abs() > _LEVEL_ROUNDING
    error = relative_error(tensors[ROI_FEATURES][settled], own[settled])
    if not error <= _POOLING_ROUNDING:
        raise ExportMismatch(
            "the regions' features", f"they differ by {error:.3g} of their root mean square {where}"
        )
    return error


def _regions(detector: FasterRCNN, geometry: Geometry, tensors: dict[str, Tensor], where: str) -> StepErrors:
    heads, regions = detector.roi_heads, tensors[PROPOSALS]
    codes = tensors["box_codes"]
    boxes = heads.box_coder.decode(codes, [regions]).reshape(-1, codes.shape[1] // 4, 4)
    boxes = clip_boxes_to_image(boxes, (geometry.height, geometry.width))[:, 1:]
    scores = tensors["class_logits"].softmax(-1)[:, 1:]
    limit = heads.score_thresh
    standing = _large(boxes, SMALLEST_DETECTION, geometry)
    standing = standing.both(scores > limit - SCORE_ROUNDING, scores > limit + SCORE_ROUNDING)
    return _checked(
        compare_choice(
            _by_class(boxes, scores, standing),
            _detections(tensors),
            iou=heads.nms_thresh,
            most=heads.detections_per_img,
            longest_edge=max(geometry.height, geometry.width),
        ),
        "the detections",
        where,
    )


@dataclass(frozen=True)
class _Standing:
    """What may pass the thresholds, rounded favourably, and what passes in any case."""

    possible: Tensor
    certain: Tensor

    def both(self, possible: Tensor, certain: Tensor) -> _Standing:
        return _Standing(self.possible & possible, self.certain & certain)


def _large(boxes: Tensor, edge: float, geometry: Geometry) -> _Standing:
    shortest = (boxes[..., 2:] - boxes[..., :2]).amin(-1)
    # Two coordinates, each rounded to a unit in the last place of the image's size.
    room = 4 * max(geometry.height, geometry.width) * torch.finfo(torch.float32).eps
    return _Standing(shortest >= edge - room, shortest >= edge + room)


def _last_of_best(scores: Tensor, most: int) -> Tensor:
    """Return the ``most``-th best of each row, or minus infinity where there are no more than that."""
    if scores.shape[-1] <= most:
        return torch.full(scores.shape[:-1], -torch.inf)
    return scores.topk(most, dim=-1).values[..., -1]


def _by_class(boxes: Tensor, scores: Tensor, standing: _Standing) -> Candidates:
    """Return boxes (n, classes, 4) with scores (n, classes) as candidates, those that may pass alone."""
    kept = standing.possible
    labels = torch.arange(1, scores.shape[1] + 1).expand_as(scores)
    return Candidates(boxes[kept], labels[kept], scores[kept], kept[kept], standing.certain[kept])


def _detections(tensors: dict[str, Tensor]) -> Chosen:
    return Chosen(tensors["boxes"], tensors["labels"], tensors["scores"])


def _checked(compared: Comparison, step: str, where: str) -> StepErrors:
    if compared.fault:
        raise ExportMismatch(step, f"{compared.fault} {where}")
    return StepErrors(box=compared.box_error, score=compared.score_error)
