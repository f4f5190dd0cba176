"""eval, predict and bench on one small run: every engine's answer, and a sentence for every mistake."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from dirnet_convert.bench import devices
from dirnet_convert.bench.arm64 import emulated
from dirnet_convert.cli import bench, eval, export, predict
from dirnet_convert.cli.options import plain_errors
from dirnet_convert.convert.new_run import convert_to_run
from dirnet_convert.convert.rebuild import example_image, load_run
from dirnet_convert.errors import DirnetError
from dirnet_convert.models.catalog import find_model
from dirnet_convert.onnx_export.exporter import export_onnx
from dirnet_convert.recipe import ConvertOptions, DataOptions, ModelOptions, Recipe
from dirnet_convert.run import RunFolder

SEED = 4
NETWORK = """
from torch import nn


def block(inputs, outputs, stride):
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def small(num_classes=10):
    body = nn.Sequential(block(3, 16, 2), block(16, 32, 2), block(32, 32, 1))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes))
"""

FLATTENED = """

def flattened(num_classes=10):
    body = nn.Sequential(block(3, 16, 2), block(16, 32, 2), block(32, 32, 1))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(32 * 8 * 8, num_classes))
"""

# A network that insists on its size, in a module that is called as it is; torch itself would take any.
PARTICULAR = """

class Particular(nn.Module):
    def forward(self, x):
        assert x.shape[-1] == 72, "only images of 72 pixels"
        return x


def particular(num_classes=10):
    return nn.Sequential(Particular(), small(num_classes))
"""


def invoke(module: object, *arguments: object) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(plain_errors(module.command))
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(module: object, *arguments: object) -> dict:
    result = invoke(module, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def converted(root: Path, source: str, function: str, image_size: int = 32) -> RunFolder:
    """Convert the untrained network that ``function`` of ``source`` builds, on the digits."""
    (root / "network.py").write_text(source)
    name = f"{root / 'network.py'}:{function}"
    torch.manual_seed(SEED)
    torch.save(find_model(name).build(10).state_dict(), root / "weights.pth")
    recipe = Recipe(
        seed=SEED,
        model=ModelOptions(name, str(root / "weights.pth")),
        data=DataOptions("digits", image_size=image_size),
        convert=ConvertOptions(calibration_images=32),
    )
    return convert_to_run(recipe, root / "run").run


@pytest.fixture(scope="module")
def run(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted and exported run of a small untrained network on the digits."""
    folder = converted(tmp_path_factory.mktemp("runs"), NETWORK, "small")
    export_onnx(load_run(folder).student, example_image(folder.read_config()), folder.onnx_path)
    return folder.path


def test_all_engines_give_the_same_accuracy(run: Path) -> None:
    answers = {e: answer(eval, run, "--engine", e, "--limit", 60) for e in ("torch", "kernels", "stock")}
    assert {item["images"] for item in answers.values()} == {60}
    assert {item["data"] for item in answers.values()} == {"digits"}
    top5 = [item["top5_percent"] for item in answers.values()]
    assert max(top5) - min(top5) < 100 / 60 + 0.01


def test_auto_takes_the_exported_model_while_it_is_current(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    assert answer(eval, copy, "--limit", 5)["engine"] == "kernels"
    exported = (copy / "model.onnx").stat()
    os.utime(copy / "model.safetensors", ns=(exported.st_atime_ns, exported.st_mtime_ns + 10**9))
    assert answer(eval, copy, "--limit", 5)["engine"] == "torch"


def test_a_file_alone_needs_its_data(run: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(run / "model.onnx", tmp_path / "alone.onnx"))
    missing = invoke(eval, alone)
    assert missing.exit_code == 2
    assert "--data" in missing.stderr
    assert answer(eval, alone, "--data", "digits", "--limit", 5)["images"] == 5
    inside = answer(eval, run / "model.onnx", "--limit", 5)
    assert inside["engine"] == "kernels"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere.onnx",), "No file"),
        (("nowhere",), "No run folder"),
        (("{run}/model.onnx", "--engine", "torch"), "needs its run folder"),
        (("{run}", "--run", "{run}"), "once"),
        (("{run}", "--data", "digit"), "did you mean 'digits'"),
    ],
)
def test_mistakes_of_eval(run: Path, arguments: tuple[str, ...], words: str) -> None:
    result = invoke(eval, *(argument.format(run=run) for argument in arguments))
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_predict_names_the_classes_of_an_image(run: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(SEED).integers(0, 256, (20, 30), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    by_run, by_file = (
        answer(predict, tmp_path / "digit.png", *options)["classes"]
        for options in (("--run", run, "--engine", "kernels"), ("--onnx", run / "model.onnx"))
    )
    assert len(by_run) == 5
    assert {item["name"] for item in by_run} <= set("0123456789")
    assert by_run == by_file
    shown = invoke(predict, tmp_path / "digit.png", "--run", run)
    assert shown.exit_code == 0
    assert shown.stdout.count("%") == 5


def test_predict_with_no_image(run: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for name, code in (("text.png", 1), ("nowhere.png", 2)):
        result = invoke(predict, tmp_path / name, "--run", run)
        assert result.exit_code == code
        assert name in result.stderr


def test_predict_wants_no_folder_without_images(run: Path, tmp_path: Path) -> None:
    Image.new("L", (20, 30)).save(tmp_path / "digit.png")
    result = invoke(predict, tmp_path / "digit.png", "--run", run, "--data-dir", tmp_path)
    assert result.exit_code == 2 and "--data-dir says where --data lies" in result.stderr


def test_a_size_that_pytorch_cannot_compute_is_a_sentence(run: Path, tmp_path: Path) -> None:
    flattened = converted(tmp_path, NETWORK + FLATTENED, "flattened").path
    Image.new("L", (20, 30)).save(tmp_path / "digit.png")
    for module, *arguments in ((eval, flattened), (predict, tmp_path / "digit.png", "--run", flattened)):
        result = invoke(module, *arguments, "--engine", "torch", "--image-size", 16)
        assert result.exit_code == 2, result.output
        assert "--image-size is 16, and this network does not take images" in result.stderr
        assert "Traceback" not in result.stderr
    # A network that takes any size still does.
    assert answer(eval, run, "--engine", "torch", "--image-size", 24, "--limit", 5)["images"] == 5


def test_bench_writes_its_figures(run: Path) -> None:
    result = answer(bench, "--run", run, "--rounds", 1)
    (part,) = result["results"]
    assert [engine["engine"] for engine in part["engines"]] == ["fp32", "int8", "binary"]
    assert json.loads((run / "bench.json").read_text()) == result
    assert "0.2.0" in {row["module"] for row in part["modules"]}
    assert (run / "teacher.onnx").is_file()


def test_a_run_with_int8_beside_its_bits(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    exported = answer(export, "--run", copy, "--images", 1, "--rest", "int8")
    accuracies = [answer(eval, copy, "--engine", engine)["top1_percent"] for engine in ("kernels", "stock")]
    assert accuracies[0] == accuracies[1] == exported["int8"]["after"]["top1_percent"]
    pixels = np.random.default_rng(SEED).integers(0, 256, (20, 30), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    assert len(answer(predict, tmp_path / "digit.png", "--run", copy)["classes"]) == 5
    timed = answer(bench, "--run", copy, "--rounds", 1, "--layers", "--engines", "fp32,binary,stock")
    assert timed["rest"] == "int8"
    titles = [engine["title"] for engine in timed["results"][0]["engines"]]
    assert titles == ["FP32", "binary + INT8", "stock + INT8"]
    assert "0.2.0" in {row["module"] for row in timed["results"][0]["modules"]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--threads", "one"), "whole numbers"),
        (("--threads", "0"), "at least 1"),
        (("--engines", "fp32,binry"), "did you mean 'binary'"),
        (("--engines", "fp32"), "fp32 and binary"),
        (("--device", "gpu"), "none of cpu, arm64"),
        (("--ssh", "pi@board"), "add --device arm64"),
        (("--device", "arm64", "--ssh", "pi@board", "--adb"), "two machines"),
        (("--device", "arm64", "--ssh", "pi@board", "--layers"), "--layers and --against"),
        (("--device", "arm64", "--ssh", "pi@board", "--runner", "rust"), "none of python, native"),
        (("--device", "arm64", "--ssh", "pi@board", "--cores", "huge"), "none of big, little, all"),
        (("--cores", "big"), "--cores is for an arm64 machine"),
        (("--runner", "native"), "--runner is for a board over --ssh"),
        (("--device", "arm64", "--adb", "--runner", "python"), "--runner is for a board over --ssh"),
    ],
)
def test_mistakes_of_bench(run: Path, arguments: tuple[str, ...], words: str) -> None:
    result = invoke(bench, "--run", run, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_the_emulator_gets_images_that_a_network_takes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = converted(tmp_path, NETWORK + PARTICULAR, "particular", image_size=72)
    sizes = []

    def emulate(models: object, size: int, *_rest: object) -> NoReturn:
        sizes.append(size)
        raise DirnetError("That is all.")

    monkeypatch.setattr(emulated, "run_emulated", emulate)
    monkeypatch.setattr(devices, "choose_way", lambda *_: devices.Way.EMULATED)
    result = invoke(bench, "--run", folder.path, "--device", "arm64")
    assert "That is all." in result.stderr, result.output
    assert sizes == [72]


def test_bench_needs_an_export(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "model.onnx").unlink()
    result = invoke(bench, "--run", copy)
    assert result.exit_code == 2
    assert "dirnet export" in result.stderr
