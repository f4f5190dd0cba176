"""Detectors binarized: which layers, what stays of the answer, and two steps of training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dirnet_convert.binarize.layers import binary_layers
from dirnet_convert.convert.binarize_network import Binarized
from dirnet_convert.convert.calibrate import calibrate
from dirnet_convert.convert.detector import binarize_detector
from dirnet_convert.convert.new_run import convert_to_run
from dirnet_convert.convert.rebuild import load_run
from dirnet_convert.errors import UsageError
from dirnet_convert.finetune.detection import DetectionStep
from dirnet_convert.models.detectors import FeatureForward, build_detector, loss_names
from dirnet_convert.models.state import save_tensors
from dirnet_convert.recipe import (
    ConvertOptions,
    DataOptions,
    DistillOptions,
    EstimatorOptions,
    Head,
    ModelOptions,
    Recipe,
    Task,
    Threshold,
)

SSDLITE = "ssdlite320_mobilenet_v3_large"
RESNET18 = "fasterrcnn_resnet18_fpn"


def binarized(name: str, size: int, **options: object) -> Binarized:
    torch.manual_seed(3)
    image = torch.randn(1, 3, size, size)
    return binarize_detector(build_detector(name, 2), image, ConvertOptions(**options), EstimatorOptions())


def few_regions(network: Binarized, name: str) -> None:
    if name.startswith("fasterrcnn"):
        network.student.roi_heads.fg_bg_sampler.batch_size_per_image = 16


# SSD's large VGG takes long, and the other kinds of detectors are tried with and without their heads.
@pytest.mark.parametrize(
    ("name", "size", "head"),
    [
        pytest.param("ssd300_vgg16", 300, Head.BINARIZE, marks=pytest.mark.slow),
        *((SSDLITE, 96, head) for head in Head),
        *(pytest.param("fasterrcnn_resnet50_fpn", 64, head, marks=pytest.mark.slow) for head in Head),
        *((RESNET18, 64, head) for head in Head),
    ],
)
def test_a_detector_is_binarized_and_learns(name: str, size: int, head: Head) -> None:
    network = binarized(name, size, head=head)
    assert not network.trace_failure
    chosen = {layer.name for layer in network.plan if layer.decision == "binarize"}
    layers = {n: m for n, m in network.student.named_modules() if m in set(binary_layers(network.student))}
    assert chosen == layers.keys()
    assert all(layer.reason for layer in network.plan)
    in_head = {n for n in chosen if not n.startswith("backbone.") or n.startswith("backbone.fpn.")}
    assert bool(in_head) == (head is Head.BINARIZE)
    names = {n for n, _ in network.teacher.named_modules()}
    assert chosen <= names and not binary_layers(network.teacher)

    bits = calibrate(FeatureForward(network.student), torch.randn(4, 3, size, size), Threshold.MEDIAN, 2)
    assert {layer.name.removeprefix("detector.") for layer in bits} == chosen
    few_regions(network, name)
    network.student_forward.train()
    network.teacher_forward.eval()
    step = DetectionStep(
        network.student_forward,
        network.teacher_forward,
        DistillOptions(rbd_weight=1.0),
        loss_names(network.student),
    )
    optimizer = torch.optim.SGD(network.student.parameters(), 1e-4)
    targets = [
        {
            "boxes": torch.tensor([[4.0, 5.0, 40.0, 44.0]]),
            "labels": torch.tensor([1 + k]),
            "iscrowd": torch.tensor([0]),
        }
        for k in range(2)
    ]
    images = torch.randn(2, 3, size, size)
    before = next(iter(layers.values())).weight.clone()
    for _ in range(2):
        total, parts = step(images, targets)
        assert torch.isfinite(total) and torch.isfinite(parts).all() and parts[-1] > 0
        optimizer.zero_grad()
        total.backward()
        touched = [layer for layer in layers.values() if layer.weight.grad is not None]
        # The extra feature maps of a small image may see no object.
        assert len(touched) >= len(layers) // 2
        assert all(torch.isfinite(layer.weight.grad).all() for layer in touched)
        optimizer.step()
    assert not torch.equal(before, next(iter(layers.values())).weight)
    with torch.no_grad():
        found = network.student.eval()(images)
    assert len(found) == 2 and set(found[0]) == {"boxes", "labels", "scores"}


def test_the_teacher_answers_as_the_pretrained_detector() -> None:
    torch.manual_seed(1)
    detector = build_detector(SSDLITE, 2).eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected = detector(images)
    network = binarize_detector(detector, images[:1], ConvertOptions(), EstimatorOptions())
    with torch.no_grad():
        found = network.teacher.eval()(images)
    for left, right in zip(found, expected, strict=True):
        assert torch.equal(left["labels"], right["labels"])
        assert torch.allclose(left["boxes"], right["boxes"], atol=1e-3)


def test_globs_name_layers_of_the_whole_detector() -> None:
    network = binarized(
        RESNET18, 64, keep=("backbone.body.layer1.*",), binarize=("rpn.head.conv*", "*fpn.inner_blocks.0*")
    )
    decisions = {layer.name: layer for layer in network.plan}
    assert decisions["backbone.body.layer1.0.conv1"].reason == "asked for with --keep"
    assert decisions["rpn.head.conv.0.0"].decision == "binarize"
    assert decisions["backbone.fpn.inner_blocks.0.0"].decision == "binarize"
    assert decisions["backbone.fpn.inner_blocks.1.0"].reason.startswith("lateral of the feature pyramid")
    assert decisions["backbone.fpn.layer_blocks.1.0"].remedy == "--set convert.head=binarize"
    with pytest.raises(UsageError, match=r"No layer matches 'layer1\.0\.conv1'"):
        binarized(RESNET18, 64, keep=("layer1.0.conv1",))


@pytest.mark.parametrize("training", [False, True])
def test_the_box_head_can_be_asked_for_and_is_calibrated(training: bool) -> None:
    name = "roi_heads.box_head.fc6"
    network = binarized(RESNET18, 64, binarize=(name,))
    plan = {layer.name: layer for layer in network.plan}
    assert plan[name].decision == "binarize"
    assert plan["roi_heads.box_head.fc7"].remedy == "--binarize 'roi_heads.box_head.fc7'"
    layer = network.student.get_submodule(name)
    assert layer in binary_layers(network.student) and not layer.threshold.any()
    forward = FeatureForward(network.student.train(training))
    bits = calibrate(forward, torch.randn(4, 3, 64, 64), Threshold.MEDIAN, 2)
    assert f"detector.{name}" in {one.name for one in bits}
    assert layer.threshold.any()
    assert network.student.rpn.training is training


def recipe_for(name: str, weights: Path, data: Path, **options: object) -> Recipe:
    return Recipe(
        model=ModelOptions(name, str(weights)),
        data=DataOptions(name="voc", dir=str(data), image_size=96),
        convert=ConvertOptions(calibration_images=4, **options),
    )


@pytest.mark.parametrize("head", list(Head))
def test_a_run_holds_the_detector(head: Head, voc_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    weights = tmp_path / "detector.safetensors"
    save_tensors(build_detector(SSDLITE, 2).state_dict(), weights)
    result = convert_to_run(recipe_for(SSDLITE, weights, voc_folder, head=head))
    config = result.run.read_config()
    assert (
        config.task is Task.DETECTION and config.class_names == ("bright", "dark") and config.image_size == 96
    )
    assert config.mean == (0.5, 0.5, 0.5)
    assert {layer.name for layer in result.bits} == set(config.binarized)
    again = load_run(result.run)
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        for left, right in zip(again.student(images), result.network.student(images), strict=True):
            assert all(torch.equal(left[key], right[key]) for key in left)


def test_detectors_and_images_must_fit(voc_folder: Path, tmp_path: Path) -> None:
    weights = tmp_path / "none.pth"
    with pytest.raises(UsageError, match="resnet18 is no detector and data 'voc' has boxes"):
        convert_to_run(recipe_for("resnet18", weights, voc_folder))
    digits = Recipe(model=ModelOptions(SSDLITE, str(weights)), data=DataOptions(name="digits"))
    with pytest.raises(UsageError, match="is a detector and data 'digits' has no boxes"):
        convert_to_run(digits)
