"""A detector's training: its lines, its resumption bit for bit, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

from dirnet_convert.binarize.layers import binary_layers
from dirnet_convert.convert.detector import binarize_detector
from dirnet_convert.convert.new_run import convert_to_run
from dirnet_convert.convert.rebuild import load_run
from dirnet_convert.data.registry import open_data
from dirnet_convert.errors import UsageError
from dirnet_convert.evaluate import module_predictor
from dirnet_convert.evaluate_detection import evaluate_detector
from dirnet_convert.finetune.norm_tails import with_norm_tails
from dirnet_convert.finetune.observer import SilentObserver, StepReport
from dirnet_convert.finetune.step import Compiled
from dirnet_convert.models.detectors import PreparedInput
from dirnet_convert.recipe import (
    AugmentKind,
    ConvertOptions,
    DataOptions,
    DistillOptions,
    EstimatorOptions,
    ModelOptions,
    Precision,
    Recipe,
    TrainOptions,
)
from dirnet_convert.run import RunFolder, Stage
from dirnet_convert.training import finetune_run, new_pretrain_run, pretrain_run

SSDLITE = "ssdlite320_mobilenet_v3_large"
RESNET18 = "fasterrcnn_resnet18_fpn"
TIMES = ("seconds", "images_per_s", "data_wait_s")


def recipe(data: Path, name: str = SSDLITE, **training: object) -> Recipe:
    options = TrainOptions(
        epochs=2,
        batch_size=2,
        optimizer="adamw",
        lr=1e-3,
        augment=AugmentKind.FLIP_CROP,
        compile=False,
        checkpoint_minutes=0.0,
        clip_grad_norm=5.0,
        ema_decay=0.5,
        region_samples=16 if name == RESNET18 else 0,
    )
    options = dataclasses.replace(options, **training)
    return Recipe(
        seed=7,
        model=ModelOptions(name, "none"),
        data=DataOptions(name="voc", dir=str(data), image_size=64),
        convert=ConvertOptions(calibration_images=6),
        pretrain=options,
        finetune=options,
        estimator=EstimatorOptions(quantile_steps=2),
        distill=DistillOptions(rbd_weight=0.5),
    )


class _StopError(Exception):
    pass


class _StopAt(SilentObserver):
    """Ends a training after a step, as a crash would; keeps what was noted."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.notes: list[str] = []

    def stepped(self, report: StepReport) -> None:
        if report.step == self.step:
            raise _StopError

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def lines(run: RunFolder) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def check_equal(ours: RunFolder, theirs: RunFolder) -> None:
    assert lines(ours) == lines(theirs)
    first, second = load_file(ours.model_path), load_file(theirs.model_path)
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", [SSDLITE, pytest.param(RESNET18, marks=pytest.mark.slow)])
def test_the_whole_way_and_a_crash_in_each_training(name: str, voc_folder: Path, tmp_path: Path) -> None:
    wanted = recipe(voc_folder, name)
    whole = new_pretrain_run(wanted, tmp_path / "whole")
    broken = new_pretrain_run(wanted, tmp_path / "broken")
    result = pretrain_run(whole)
    with pytest.raises(_StopError):
        pretrain_run(broken, observer=_StopAt(4))
    pretrain_run(broken)
    check_equal(whole, broken)
    assert result.scores.keys() == {"test_map50_percent", "test_map_percent"}

    source = dataclasses.replace(wanted, model=ModelOptions(str(whole.path)))
    straight = convert_to_run(source, tmp_path / "straight").run
    stopped = convert_to_run(source, tmp_path / "stopped").run
    tuned = finetune_run(straight)
    with pytest.raises(_StopError):
        finetune_run(stopped, observer=_StopAt(5))
    finetune_run(stopped)
    check_equal(straight, stopped)
    config = straight.read_config()
    assert config.stage is Stage.FINETUNED

    row = lines(straight)[-1]
    names = ("bbox_regression", "classification")
    if name == RESNET18:
        names = ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")
    assert row["train_loss"] == pytest.approx(
        sum(row[part] for part in names) + 0.5 * row["rbd_loss"], rel=1e-4
    )
    assert row["rbd_loss"] > 0 and row["test_map_percent"] == tuned.scores["test_map_percent"]
    data = open_data(config.recipe.data, image_size=64, mean=config.mean, std=config.std)
    with module_predictor(load_run(straight).student) as predict:
        assert evaluate_detector(predict, data, 2).map_percent == tuned.scores["test_map_percent"]


def test_batch_norms_of_backbone_and_head_are_measured_again(voc_folder: Path, tmp_path: Path) -> None:
    run = new_pretrain_run(recipe(voc_folder, norm_images=4, ema_decay=0.0, epochs=1), tmp_path / "run")
    pretrain_run(run)
    saved = load_file(run.model_path)
    counted = {name: int(value) for name, value in saved.items() if name.endswith(".num_batches_tracked")}
    assert {name.split(".")[0] for name in counted} == {"backbone", "head"}
    assert set(counted.values()) == {2}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"label_smoothing": 0.1}, r"pretrain\.label_smoothing is for classifiers"),
        ({"crop_area_min": 0.5}, r"pretrain\.crop_area_min is for classifiers"),
        ({"image_size": 96}, r"pretrain\.image_size is for classifiers"),
        ({"small_image_size": 96, "small_first": 0.5}, r"pretrain\.small_image_size is for classifiers"),
        ({"precision": Precision.BFLOAT16}, r"pretrain\.precision must be float32"),
        ({"region_samples": 64}, r"pretrain\.region_samples is for Faster R-CNN"),
        ({"batch_size": 7}, "fewer than a batch of 7"),
    ],
)
def test_what_a_detector_cannot_be_trained_with(
    change: dict[str, object], sentence: str, voc_folder: Path, tmp_path: Path
) -> None:
    wanted = recipe(voc_folder, **change)
    run = new_pretrain_run(wanted, tmp_path / "run")
    with pytest.raises(UsageError, match=sentence):
        pretrain_run(run)


def test_notes_on_the_boxes_are_said_before_the_training(voc_folder: Path, tmp_path: Path) -> None:
    path = voc_folder / "Annotations" / "train0.xml"
    text = path.read_text()
    path.write_text(text.replace("<xmax>28</xmax>", "<xmax>1</xmax>"))
    assert path.read_text() != text
    run = new_pretrain_run(recipe(voc_folder), tmp_path / "run")
    observer = _StopAt(1)
    with pytest.raises(_StopError):
        pretrain_run(run, observer=observer)
    assert observer.notes == ["1 box without area was left out of data 'voc'."]


class _TinyBackbone(nn.Module):
    """Three convolutions and two feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.out_channels = [8, 8]
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        first = self.middle(self.stem(x))
        return OrderedDict([("0", first), ("1", self.last(first))])


@pytest.mark.slow
def test_a_changed_backbone_gives_the_same_losses_and_gradients() -> None:
    torch.manual_seed(5)
    anchors = DefaultBoxGenerator([[2], [2]])
    detector = SSD(_TinyBackbone(), anchors, (32, 32), num_classes=3)
    detector.transform = PreparedInput()
    images = torch.randn(2, 3, 32, 32)
    network = binarize_detector(detector, images[:1], ConvertOptions(), EstimatorOptions())
    targets = [{"boxes": torch.tensor([[2.0, 3.0, 20.0, 22.0]]), "labels": torch.tensor([1])}] * 2
    forward = network.student_forward.train()
    latent = binary_layers(network.student)[0].weight
    found, notes = [], []
    changes = (None, with_norm_tails, lambda backbone: Compiled(with_norm_tails(backbone), notes.append))
    for change in changes:
        if change is not None:
            forward.run_backbone_by(change)
        losses, representations = forward(images, targets)
        (sum(losses.values()) + sum(value.square().mean() for value in representations)).backward()
        found.append((losses, representations, latent.grad.clone()))
        latent.grad = None
    assert len(notes) == 1 and "cannot be compiled" not in notes[0]
    plain, maps, gradient = found[0]
    for losses, others, other_gradient in found[1:]:
        assert all(torch.allclose(plain[name], losses[name], rtol=1e-4) for name in plain)
        assert len(maps) == len(others) > 0
        assert torch.allclose(gradient, other_gradient, rtol=1e-3, atol=1e-6)
