"""The certificate of suppression: torchvision's choice passes, any other fails, near ties go either way."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torchvision.ops import boxes as box_ops

from dirnet_convert.onnx_export.detector.selection import Candidates, Chosen, Comparison, compare_choice

IOU, EDGE = 0.5, 100


def candidates(boxes: Tensor, groups: Tensor, scores: Tensor) -> Candidates:
    everything = torch.ones(len(scores), dtype=torch.bool)
    return Candidates(boxes, groups, scores, everything, everything)


@pytest.fixture
def crowd(generator: torch.Generator) -> Candidates:
    """Many boxes of three groups that overlap a lot."""
    low = torch.rand(400, 2, generator=generator) * 60
    size = 15 + torch.rand(400, 2, generator=generator) * 25
    groups = torch.randint(1, 4, (400,), generator=generator)
    return candidates(torch.cat([low, low + size], 1), groups, torch.rand(400, generator=generator))


def suppressed(given: Candidates, most: int) -> Chosen:
    kept = box_ops._batched_nms_vanilla(given.boxes, given.scores, given.groups, IOU)[:most]
    return Chosen(given.boxes[kept], given.groups[kept], given.scores[kept])


def compare(given: Candidates, chosen: Chosen, most: int = 1000) -> Comparison:
    return compare_choice(given, chosen, iou=IOU, most=most, longest_edge=EDGE)


def taken(chosen: Chosen, keep: Tensor) -> Chosen:
    return Chosen(chosen.boxes[keep], chosen.groups[keep], chosen.scores[keep])


@pytest.mark.parametrize("most", [1000, 30])
def test_torchvisions_choice_passes(crowd: Candidates, most: int) -> None:
    chosen = suppressed(crowd, most)
    assert compare(crowd, chosen, most) == Comparison("", 0.0, 0.0)
    order = torch.arange(len(chosen.scores) - 1, -1, -1)
    assert not compare(crowd, taken(chosen, order), most).fault


@pytest.mark.parametrize("position", [0, 20, -1])
def test_a_missing_box_is_found(crowd: Candidates, position: int) -> None:
    chosen = suppressed(crowd, 1000)
    keep = torch.ones(len(chosen.scores), dtype=torch.bool)
    keep[position] = False
    assert "missing" in compare(crowd, taken(chosen, keep)).fault


def test_a_box_too_many_is_found(crowd: Candidates) -> None:
    chosen = suppressed(crowd, 1000)
    kept = set(map(tuple, chosen.boxes.tolist()))
    (other, *_) = (k for k, box in enumerate(crowd.boxes.tolist()) if tuple(box) not in kept)
    more = Chosen(
        torch.cat([chosen.boxes, crowd.boxes[other, None]]),
        torch.cat([chosen.groups, crowd.groups[other, None]]),
        torch.cat([chosen.scores, crowd.scores[other, None]]),
    )
    assert "overlap" in compare(crowd, more).fault
    assert "at most 3" in compare(crowd, chosen, 3).fault


def test_another_box_score_or_group_is_found(crowd: Candidates) -> None:
    chosen = suppressed(crowd, 1000)
    wrong = [
        dataclasses.replace(chosen, boxes=chosen.boxes + 0.01),
        dataclasses.replace(chosen, scores=chosen.scores + 1e-4),
        dataclasses.replace(chosen, groups=chosen.groups % 3 + 1),
    ]
    for other in wrong:
        assert "none that PyTorch decodes" in compare(crowd, other).fault
    assert not compare(crowd, dataclasses.replace(chosen, boxes=chosen.boxes + 1e-4)).fault


def test_a_box_below_the_threshold_may_not_come(crowd: Candidates) -> None:
    chosen = suppressed(crowd, 1000)
    never = dataclasses.replace(crowd, possible=crowd.scores > float(chosen.scores.min()))
    assert "none that PyTorch decodes" in compare(never, chosen).fault


@pytest.mark.parametrize(("gap", "allowed"), [(1e-6, True), (1e-3, False)])
def test_either_of_two_boxes_with_nearly_one_score_may_stay(gap: float, allowed: bool) -> None:
    # The first suppresses the second, and only the second would suppress the third.
    boxes = torch.tensor([[0.0, 0, 10, 10], [3.0, 0, 13, 10], [6.0, 0, 16, 10]])
    given = candidates(boxes, torch.ones(3, dtype=torch.int64), torch.tensor([0.8, 0.8 - gap, 0.5]))
    first = taken(Chosen(given.boxes, given.groups, given.scores), torch.tensor([0, 2]))
    second = taken(Chosen(given.boxes, given.groups, given.scores), torch.tensor([1]))
    assert not compare(given, first).fault
    assert (not compare(given, second).fault) is allowed


@pytest.mark.parametrize(("shift", "allowed"), [(1e-6, True), (0.05, False)])
def test_an_overlap_at_the_threshold_goes_either_way(shift: float, allowed: bool) -> None:
    # 20 by 10 pixels in common of 40 by 10.
    boxes = torch.tensor([[0.0, 0, 30, 10], [10.0 + shift, 0, 40 + shift, 10]])
    given = candidates(boxes, torch.ones(2, dtype=torch.int64), torch.tensor([0.8, 0.7]))
    both = Chosen(given.boxes, given.groups, given.scores)
    assert not compare(given, both).fault
    assert (not compare(given, taken(both, torch.tensor([0]))).fault) is allowed


def test_nothing_chosen_of_nothing_is_right() -> None:
    none = candidates(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    empty = Chosen(none.boxes, none.groups, none.scores)
    assert not compare(none, empty).fault
    one = candidates(torch.tensor([[0.0, 0, 9, 9]]), torch.ones(1, dtype=torch.int64), torch.tensor([0.9]))
    assert "1 boxes are missing" in compare(one, empty).fault
