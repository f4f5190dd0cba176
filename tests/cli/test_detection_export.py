"""A detector from export to predict, eval and bench on the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import Result

from dirnet_convert import api
from dirnet_convert.models.detectors import build_detector
from dirnet_convert.run import RunFolder

Invoke = Callable[..., Result]
pytestmark = pytest.mark.slow
MODEL, SIZE, SEED = "ssdlite320_mobilenet_v3_large", 96, 11


@pytest.fixture(scope="module")
def run_once(
    library: Path, voc_folder_once: Path, dirnet: Invoke, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A converted and exported run of a detector whose random head has something to say."""
    root = tmp_path_factory.mktemp("detector")
    torch.manual_seed(SEED)
    detector = build_detector(MODEL, 2).train()
    with torch.no_grad():
        for _ in range(20):
            detector.backbone(torch.randn(4, 3, SIZE, SIZE))
        for layer in detector.head.classification_head.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight *= 8
    torch.save(detector.state_dict(), root / "weights.pth")
    data = ("--data", "voc", "--data-dir", voc_folder_once, "--image-size", SIZE)
    calibration = ("--set", "convert.calibration_images=4")
    out = root / "run"
    result = dirnet("convert", MODEL, *data, "--weights", root / "weights.pth", *calibration, "--out", out)
    assert result.exit_code == 0, result.output
    result = dirnet("export", "--run", out, "--images", 1, "--json")
    assert result.exit_code == 0, result.output
    exported = json.loads(result.stdout)
    assert {report["kernels"] for report in exported["detections"]} == {"dirnet", "stock"}
    assert all(report["boxes"] > 0 for report in exported["detections"])
    return out


@pytest.fixture
def run(run_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_once, tmp_path / "run"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    pixels = torch.randint(0, 256, (60, 90, 3), generator=torch.Generator().manual_seed(SEED))
    Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)
    return path


def test_predict_finds_and_draws_with_every_engine(
    dirnet: Invoke, run: Path, picture: Path, tmp_path: Path
) -> None:
    alone = Path(shutil.copy(run / "model.onnx", tmp_path / "alone.onnx"))
    found = {}
    for network, *engine in ((run, "--engine", "torch"), (run,), (alone,), (alone, "--engine", "stock")):
        out = tmp_path / f"boxes{len(found)}.png"
        arguments = (network, picture, "--threshold", 0.01, *engine, "--out", out, "--json")
        result = dirnet("predict", *arguments)
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        found[len(found)] = answer["objects"]
        assert answer["drawn"] == str(out)
        with Image.open(out) as drawn, Image.open(picture) as plain:
            assert drawn.size == plain.size == (90, 60)
            assert drawn.tobytes() != plain.tobytes()
    assert len(found[1]) > 3 and found[1] == found[2]
    assert {item["label"] for item in found[1]} <= {1, 2}
    for item in found[1]:
        left, top, right, bottom = item["box"]
        assert -0.01 <= left <= right <= 90.01 and -0.01 <= top <= bottom <= 60.01
    names = {item["name"] for item in found[1]}
    assert names <= set(RunFolder(run).read_config().class_names)


def test_predict_prints_a_table_or_that_there_is_nothing(dirnet: Invoke, run: Path, picture: Path) -> None:
    listed = dirnet("predict", picture, "--run", run, "--threshold", 0.01)
    assert listed.exit_code == 0 and "score, %" in listed.output
    nothing = dirnet("predict", run, picture, "--threshold", 1.0)
    assert nothing.exit_code == 0 and "No object with a score of at least 1" in nothing.output


def test_mistakes_with_a_detector_are_one_sentence(
    refused: Callable[..., str], run: Path, picture: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert "cannot be read as an image" in refused(1, "predict", run, broken)
    assert "is not there" in refused(2, "predict", run, tmp_path / "none.png")
    assert "no ending of an image" in refused(2, "predict", run, picture, "--out", tmp_path / "boxes.txt")
    assert "is a folder" in refused(2, "predict", run, picture, "--out", tmp_path)
    assert "leave it out" in refused(2, "predict", run, picture, "--image-size", 64)
    assert "3 paths are given" in refused(2, "predict", run, picture, picture)
    assert "Name the network once" in refused(2, "predict", run, picture, "--run", run)
    # A file without its description, and one that is no detector at all.
    path = run / "model.onnx"
    proto = onnx.load(path)
    del proto.metadata_props[:]
    path.write_bytes(proto.SerializeToString())
    assert "gives no boxes" in refused(2, "predict", run, picture, "--engine", "stock")


def test_a_classifier_draws_nothing(
    refused: Callable[..., str], converted: Path, picture: Path, tmp_path: Path
) -> None:
    assert "is a classifier" in refused(2, "predict", converted, picture, "--out", tmp_path / "boxes.png")
    assert "is a classifier" in refused(2, "predict", converted, picture, "--threshold", 0.3)
    assert not (tmp_path / "boxes.png").exists()


def test_eval_measures_the_exported_file(dirnet: Invoke, run: Path) -> None:
    answers = {}
    for engine in ("kernels", "stock"):
        result = dirnet("eval", run, "--engine", engine, "--json")
        assert result.exit_code == 0, result.output
        answers[engine] = json.loads(result.stdout)
    assert answers["kernels"]["images"] == 3
    assert answers["kernels"]["map50_percent"] == pytest.approx(answers["stock"]["map50_percent"], abs=1e-6)


def test_bench_compares_detectors(dirnet: Invoke, refused: Callable[..., str], run: Path) -> None:
    (run / "teacher.onnx").unlink()
    result = dirnet("bench", "--run", run, "--rounds", 1, "--json")
    assert result.exit_code == 0, result.output
    report = (run / "bench.json").read_text()
    assert '"int8"' in report and '"binary"' in report and (run / "teacher.onnx").is_file()
    assert "batches of 1 only" in refused(2, "bench", "--run", run, "--batch", 2)


def test_int8_for_the_rest_is_for_classifiers(refused: Callable[..., str], run: Path) -> None:
    before = (run / "model.onnx").read_bytes()
    assert "is for classifiers" in refused(2, "export", "--run", run, "--rest", "int8")
    assert (run / "model.onnx").read_bytes() == before


def test_a_trained_but_not_exported_run_answers_in_pytorch(dirnet: Invoke, run: Path, picture: Path) -> None:
    (run / "model.onnx").unlink()
    result = dirnet("predict", run, picture, "--threshold", 0.01, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["objects"]


def test_the_python_function_exports_a_detector(run: Path, tmp_path: Path) -> None:
    exported = api.export_onnx(run, tmp_path / "detector.onnx", images=1)
    assert exported.result.binary_nodes and exported.detections[0].boxes > 0
    session = api.load_detector(tmp_path / "detector.onnx")
    assert session.info.width == SIZE
