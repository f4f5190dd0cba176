"""Mean average precision: perfect answers, wrong ones, crowds, and what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dirnet_convert.data.detection_source import DetectionSource
from dirnet_convert.data.registry import open_data
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.evaluate_detection import evaluate_detector
from dirnet_convert.models.detectors import Detections
from dirnet_convert.recipe import DataOptions


@pytest.fixture
def source(voc_folder: Path) -> DetectionSource:
    """Three test images with a bright and a dark square each."""
    return open_data(DataOptions(name="voc", dir=str(voc_folder), image_size=64))


def answers(source: DetectionSource, shift: float = 0.0, label: int = 0) -> list[Detections]:
    _, targets = next(iter(source.test_batches(3)))
    return [
        {
            "boxes": target["boxes"] + shift,
            "labels": target["labels"] + label,
            "scores": torch.ones(len(target["labels"])),
        }
        for target in targets
    ]


def predictor(found: list[Detections]):
    rest = list(found)

    def predict(images: Tensor) -> list[Detections]:
        taken, rest[:] = rest[: len(images)], rest[len(images) :]
        return taken

    return predict


def test_perfect_answers_are_100_percent_and_shifted_ones_less(source: DetectionSource) -> None:
    perfect = evaluate_detector(predictor(answers(source)), source, batch_size=2)
    assert (perfect.images, perfect.map50_percent, perfect.map_percent) == (3, 100.0, 100.0)
    # Squares of 19.2 x 25.6 that are 2 pixels off in both directions overlap with an IoU of 0.70 to 0.75.
    shifted = evaluate_detector(predictor(answers(source, shift=2.0)), source)
    assert shifted.map50_percent == 100.0 and 40.0 <= shifted.map_percent <= 60.0


def test_wrong_classes_and_no_answers_are_0_percent(source: DetectionSource) -> None:
    assert evaluate_detector(predictor(answers(source, label=5)), source).map50_percent == 0.0
    none = [
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    ]
    assert evaluate_detector(predictor(none * 3), source).map_percent == 0.0


def test_what_is_excused_counts_neither_way(source: DetectionSource, voc_folder: Path) -> None:
    found = answers(source)
    for path in (voc_folder / "Annotations").glob("test*.xml"):
        dark = "<name>dark</name>"
        path.write_text(path.read_text().replace(dark, f"{dark}<difficult>1</difficult>"))
    excused = open_data(DataOptions(name="voc", dir=str(voc_folder), image_size=64))
    assert evaluate_detector(predictor(found), excused).map_percent == 100.0
    only_bright = [{k: v[one["labels"] == 1] for k, v in one.items()} for one in found]
    assert evaluate_detector(predictor(only_bright), excused).map_percent == 100.0
    assert evaluate_detector(predictor(only_bright), source).map_percent == pytest.approx(50.0)


def test_answers_that_are_not_finite_are_an_error(source: DetectionSource) -> None:
    with pytest.raises(DirnetError, match="not finite"):
        evaluate_detector(predictor(answers(source, shift=float("nan"))), source)


def test_data_without_boxes_and_a_missing_extra_are_sentences(
    source: DetectionSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = open_data(DataOptions(name="digits"))
    with pytest.raises(UsageError, match="'digits' has no boxes"):
        evaluate_detector(predictor([]), digits)
    monkeypatch.setitem(sys.modules, "torchmetrics.detection", None)
    with pytest.raises(UsageError, match=r"dirnet-convert\[detect\]"):
        evaluate_detector(predictor([]), source)
