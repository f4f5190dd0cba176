"""dirnet export on a run of the small digits."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path

import onnx
import pytest
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from dirnet_convert import api
from dirnet_convert.cli import export
from dirnet_convert.convert.new_run import convert_to_run
from dirnet_convert.errors import UsageError
from dirnet_convert.models.catalog import find_model
from dirnet_convert.onnx_export import checked
from dirnet_convert.onnx_export.verify_report import ExportMismatch
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
    for folder in (tmp_path, "."):
        result = invoke("--run", run, "--out", folder)
        assert "is a folder" in str(result.exception)


@pytest.mark.parametrize("name", ["model.json", "model.pbtxt", "model.onnxtxt", "model.xml", "model"])
def test_the_file_may_be_called_anything(run: Path, tmp_path: Path, name: str) -> None:
    result = invoke("--run", run, "--images", 1, "--out", tmp_path / name, "--json")
    assert result.exit_code == 0, result.output
    onnx.checker.check_model(onnx.load(tmp_path / name, format="protobuf"))
    assert json.loads(result.stdout)["binary_bytes"] == (tmp_path / name).stat().st_size


@pytest.mark.parametrize("name", ["rival.xml", "rival.bin", "rival.XML"])
def test_openvinos_files_are_not_the_onnx_file(run: Path, tmp_path: Path, name: str) -> None:
    result = invoke("--run", run, "--openvino", "--out", tmp_path / name)
    assert isinstance(result.exception, UsageError)
    assert str(tmp_path / "rival.onnx") in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_the_float_networks_file_is_not_the_binary_ones(run: Path) -> None:
    result = invoke("--run", run, "--out", run / "." / "teacher.onnx")
    assert isinstance(result.exception, UsageError)
    assert "float network" in str(result.exception)


@pytest.mark.parametrize("rest", ["float", "int8"])
def test_nothing_is_written_where_the_float_network_differs(
    run: Path, rest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    for name in ("model.onnx", "teacher.onnx"):
        (copy / name).write_bytes(b"an older file")
    before = {file.name for file in copy.iterdir()}
    honest = checked.float_model

    def wrong(network: nn.Module, example: Tensor) -> onnx.ModelProto:
        with torch.no_grad():
            other = deepcopy(network)
            other.get_submodule("11").bias += 1
        return honest(other, example)

    monkeypatch.setattr(checked, "float_model", wrong)
    with pytest.raises(ExportMismatch, match="Nothing was written"):
        api.export_onnx(copy, images=1, rest=rest)
    assert {file.name for file in copy.iterdir()} == before
    assert {(copy / name).read_bytes() for name in ("model.onnx", "teacher.onnx")} == {b"an older file"}


def test_int8_for_the_rest_is_measured_and_written(run: Path, tmp_path: Path) -> None:
    plain = json.loads(invoke("--run", run, "--images", 2, "--json").stdout)
    out = tmp_path / "int8.onnx"
    result = invoke("--run", run, "--images", 2, "--rest", "int8", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (plain["rest"], said["rest"]) == ("float", "int8")
    assert "int8" not in plain and plain["int8_layers"] == []
    assert [layer["name"] for layer in said["int8_layers"]] == ["0", "11"] and said["float_layers"] == []
    int8 = said["int8"]
    assert int8["calibration_images"] == 64
    # Every test image of the digits: there are fewer than the most that are looked at.
    assert int8["before"]["images"] == int8["after"]["images"] == 355
    assert 0 < int8["logit_difference"] < 1 and 0.5 < int8["top1_agreement"] <= 1
    assert said["binary_bytes"] == out.stat().st_size
    assert said["sizes"][3] == {"kind": "INT8 weights", "float_bytes": 0, "binary_bytes": 16 * 27 + 320}


def test_int8_for_the_rest_is_printed(run: Path, tmp_path: Path) -> None:
    result = invoke("--run", run, "--images", 2, "--rest", "int8", "--out", tmp_path / "int8.onnx")
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "calibrated on 64 images: top-1" in text and "on 355 test images" in text
    assert "Layers in INT8" in text and "Layers left in float" not in text
    assert "before 2 other layers became INT8" in text


def test_the_accuracy_is_that_of_the_written_file(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8.onnx"
    exported = api.export_onnx(run, out, images=1, rest="int8")
    for path, accuracy in ((out, exported.rest.after), (None, exported.rest.before)):
        measured = api.evaluate(run, onnx=path)
        assert measured.top1_percent == pytest.approx(accuracy.top1_percent, abs=0.3)


def test_another_rest_is_refused(run: Path, tmp_path: Path) -> None:
    assert invoke("--run", run, "--rest", "int4").exit_code == 2
    with pytest.raises(UsageError, match="none of float, int8"):
        api.export_onnx(run, tmp_path / "int4.onnx", rest="int4")
    assert not (tmp_path / "int4.onnx").exists()
