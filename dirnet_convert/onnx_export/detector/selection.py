"""Whether chosen boxes are what non-maximum suppression chooses, but for what rounding alone decides.

Two engines round differently, and of two boxes with nearly one score either may come first; what it
suppresses then falls, and what that would have suppressed stays. Comparing two lists of boxes cannot tell
this from an error. Greedy suppression, however, is the one choice in which no chosen box suppresses another
and every other box is suppressed by a chosen one that ranks before it. Both are checked for the boxes at
hand, with no more room than the rounding that was seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou

# Some units in the last place of a probability, as a softmax's sum leaves them.
SCORE_ROUNDING = 2e-6
# Of the image's longest edge: a few units in the last place of a coordinate and of exp().
_BOX_ROUNDING = 1e-5
# Of two scores or boxes each is off by as much.
_BOTH = 2.0


@dataclass(frozen=True)
class Candidates:
    """Boxes (n, 4) before suppression, their groups (n), scores (n), and how each stands to the thresholds.

    ``possible`` may pass them, rounded favourably; ``certain`` passes them in any case.
    """

    boxes: Tensor
    groups: Tensor
    scores: Tensor
    possible: Tensor
    certain: Tensor


@dataclass(frozen=True)
class Chosen:
    """What an engine chose: boxes (M, 4), groups (M), scores (M)."""

    boxes: Tensor
    groups: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Comparison:
    """How the chosen boxes compare; ``fault`` is empty where all is right, ``box_error`` is in pixels."""

    fault: str
    box_error: float = 0.0
    score_error: float = 0.0


def compare_choice(
    candidates: Candidates, chosen: Chosen, *, iou: float, most: int, longest_edge: int
) -> Comparison:
    """Compare the ``most`` boxes that an engine chose with suppression above ``iou`` among ``candidates``."""
    if len(chosen.scores) > most:
        return Comparison(f"{len(chosen.scores)} boxes came where at most {most} may")
    own = _matched(candidates, chosen, longest_edge)
    if isinstance(own, str):
        return Comparison(own)
    boxes, scores = candidates.boxes[own], candidates.scores[own]
    box_error = float((boxes - chosen.boxes).abs().max()) if len(own) else 0.0
    score_error = float((scores - chosen.scores).abs().max()) if len(own) else 0.0
    room = _BOTH * max(score_error, SCORE_ROUNDING)
    uncertainty = _iou_room(boxes, box_error)
    fault = _overlapping(boxes, candidates.groups[own], iou, uncertainty)
    if not fault:
        cut = float(scores.min()) if len(own) == most else -1.0
        due = candidates.certain & (candidates.scores > cut + room)
        due[own] = False
        fault = _unsuppressed(candidates, own, due, iou, room, box_error)
    return Comparison(fault, box_error, score_error)


def _matched(candidates: Candidates, chosen: Chosen, longest_edge: int) -> Tensor | str:
    """Return the position of each chosen box among the candidates, or what is wrong with it."""
    free = candidates.possible.clone()
    limits = (_BOX_ROUNDING * longest_edge, SCORE_ROUNDING)
    positions = []
    for box, group, score in zip(chosen.boxes, chosen.groups, chosen.scores, strict=True):
        away = (candidates.boxes - box).abs().amax(1) / limits[0]
        away = torch.maximum(away, (candidates.scores - score).abs() / limits[1])
        away[~free | (candidates.groups != group)] = torch.inf
        best = int(away.argmin()) if len(away) else -1
        if best < 0 or not away[best] <= 1:
            return f"a box with the score {float(score):.4f} is none that PyTorch decodes"
        free[best] = False
        positions.append(best)
    return torch.tensor(positions, dtype=torch.int64)


def _iou_room(boxes: Tensor, box_error: float) -> Tensor:
    """Return by how much the intersection over union with each of ``boxes`` (n, 4) may be off."""
    edges = (boxes[:, 2:] - boxes[:, :2]).amin(1).clamp(min=1e-9)
    # Each of four coordinates moves an area by the error times an edge.
    return _BOTH * 4 * max(box_error, 1e-6) / edges + 1e-6


def _overlapping(boxes: Tensor, groups: Tensor, iou: float, room: Tensor) -> str:
    overlap = _overlap(boxes, boxes)
    wrong = (overlap > iou + room[:, None] + room) & (groups[:, None] == groups)
    wrong.fill_diagonal_(False)
    if not wrong.any():
        return ""
    return f"two boxes of one class stay although they overlap by {float(overlap[wrong].max()):.3f}"


def _unsuppressed(
    candidates: Candidates, own: Tensor, due: Tensor, iou: float, room: float, box_error: float
) -> str:
    left = due.nonzero().flatten()
    for part in left.split(4096):
        boxes = candidates.boxes[part]
        overlap = _overlap(boxes, candidates.boxes[own])
        uncertain = _iou_room(boxes, box_error)[:, None] + _iou_room(candidates.boxes[own], box_error)
        suppresses = (
            (overlap > iou - uncertain)
            & (candidates.groups[part][:, None] == candidates.groups[own])
            & (candidates.scores[own] >= candidates.scores[part][:, None] - room)
        )
        missing = part[~suppresses.any(1)]
        if len(missing):
            return (
                f"{len(missing)} boxes are missing, the likeliest with the score "
                f"{float(candidates.scores[missing].max()):.4f}"
            )
    return ""


def _overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the intersection over union (n, m); 0 between boxes without an area."""
    exact, against = boxes.double(), others.double()
    empty = (box_area(exact)[:, None] + box_area(against)) == 0
    return box_iou(exact, against).masked_fill(empty, 0.0)
