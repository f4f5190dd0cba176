"""A detector from pretrain to eval on the command line, and what is said of wrong requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Invoke = Callable[..., Result]
SSDLITE = "ssdlite320_mobilenet_v3_large"
QUICK = [
    argument
    for knob in (
        "convert.calibration_images=4",
        *(
            f"{section}.{knob}"
            for section in ("pretrain", "finetune")
            for knob in ("batch_size=2", "compile=false")
        ),
        "finetune.epochs=1",
        "distill.rbd_weight=0.5",
    )
    for argument in ("--set", knob)
]


def answer(dirnet: Invoke, *arguments: object) -> dict:
    result = dirnet(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_whole_way_of_a_detector(dirnet: Invoke, voc_folder: Path) -> None:
    data = ("--data", "voc", "--data-dir", voc_folder)
    options = ("--image-size", 64, "--weights", "none", "--epochs", 1, *QUICK)
    trained = answer(dirnet, "pretrain", SSDLITE, *data, *options)
    assert trained["epochs"] == 1 and 0 <= trained["test_map_percent"] <= trained["test_map50_percent"]
    converted = answer(dirnet, "convert", trained["run"], "--set", "convert.head=binarize")
    binary = {layer["name"] for layer in converted["layers"] if layer["decision"] == "binarize"}
    assert any(name.startswith("head.") for name in binary)
    assert any(name.startswith("backbone.") for name in binary)
    tuned = answer(dirnet, "finetune")
    assert tuned["run"] == converted["run"]
    measured = answer(dirnet, "eval", "--engine", "torch", "--batch-size", 2)
    assert measured["images"] == 3
    assert measured["map_percent"] == pytest.approx(tuned["test_map_percent"], abs=1e-3)
    read = dirnet("eval", trained["run"])
    assert "mAP at IoU 0.5 " in read.output and "3 test images" in read.output
    plan = answer(dirnet, "inspect", converted["run"])["layers"]
    assert {layer["name"] for layer in plan if layer["decision"] == "binarize"} == binary


def test_wrong_requests_of_a_detector(dirnet: Invoke, voc_folder: Path, tmp_path: Path) -> None:
    data = ("--data", "voc", "--data-dir", voc_folder)
    for words, *arguments in (
        ("has no boxes; use --data voc or coco", "pretrain", SSDLITE, "--data", "digits"),
        ("is no detector and data 'voc' has boxes", "pretrain", "resnet20", *data),
        ("'dirnet pretrain", "convert", SSDLITE, *data, "--weights", "none"),
        ("for 80 classes and the data has 2", "convert", SSDLITE, *data),
        ("has no images in VOC's form", "convert", SSDLITE, "--data", "voc", "--data-dir", tmp_path / "none"),
        ("choose another --image-size", "inspect", "ssd300_vgg16", "--image-size", 64),
        ("is a detector of a kind", "inspect", "retinanet_resnet50_fpn"),
    ):
        result = dirnet(*arguments)
        assert result.exit_code in (1, 2), (arguments, result.output)
        assert words in " ".join(result.output.split()), (arguments, result.output)
        assert "Traceback" not in result.output
