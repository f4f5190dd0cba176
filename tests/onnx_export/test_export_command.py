"""dirnet export on a run of the small digits."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from dirnet_convert.cli import export
from dirnet_convert.convert.new_run import convert_to_run
from dirnet_convert.models.catalog import find_model
from dirnet_convert.recipe import ConvertOptions, DataOptions, ModelOptions, Recipe

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def invoke(*arguments: object):
    app = typer.Typer()
    app.command()(export.command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


NETWORK = """
from torch import nn


def small(num_classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes),
    )
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    (folder / "network.py").write_text(NETWORK)
    name = f"{folder / 'network.py'}:small"
    torch.manual_seed(0)
    state = find_model(name).build(10).state_dict()
    save_file({name: value.clone() for name, value in state.items()}, folder / "weights.safetensors")
    recipe = Recipe(
        model=ModelOptions(name, str(folder / "weights.safetensors")),
        data=DataOptions("digits"),
        convert=ConvertOptions(calibration_images=32),
    )
    return convert_to_run(recipe, folder / "run", False).run.path


def test_the_json_says_what_was_written_and_verified(run: Path) -> None:
    result = invoke("--run", run, "--onnx", "--images", 2, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["verified"] and said["verified_on_images"] == 2
    assert said["binary_bytes"] == (run / "model.onnx").stat().st_size
    assert said["fp32_bytes"] == (run / "teacher.onnx").stat().st_size
    assert len(said["layers"]) == 2 and said["transposes"] == []
    assert [layer["name"] for layer in said["float_layers"]] == ["0", "11"]


def test_the_file_may_go_elsewhere(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    result = invoke("--run", run, "--images", 1, "--out", out)
    assert result.exit_code == 0, result.output
    onnx.checker.check_model(onnx.load(out))
    assert "packed binary weights" in result.output and "2 binary layers" in result.output


def test_a_folder_is_no_file(run: Path, tmp_path: Path) -> None:
    result = invoke("--run", run, "--out", tmp_path)
    assert "is a folder" in str(result.exception)
