"""dirnet export --openvino and dirnet bench --against openvino on a small run."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import Result

from dirnet_convert import api
from dirnet_convert.errors import UsageError
from dirnet_convert.onnx_export.openvino import export
from dirnet_convert.onnx_export.openvino.build import BuiltModel
from dirnet_convert.runtime.openvino import read_for_cpu

pytestmark = pytest.mark.openvino

Invoke = Callable[..., Result]


@pytest.fixture(scope="module", autouse=True)
def openvino() -> None:
    """Skip where the rival is not installed."""
    pytest.importorskip("openvino", reason="openvino comes with the extra 'bench'")


def test_the_run_gets_the_files(dirnet: Invoke, converted: Path, tmp_path: Path) -> None:
    result = dirnet("export", "--run", converted, "--openvino", "--images", 2, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)["openvino"]
    assert said["path"] == str(converted / "model.xml")
    assert said["bytes"] == sum((converted / name).stat().st_size for name in ("model.xml", "model.bin"))
    assert [layer["arithmetic"] for layer in said["layers"]] == ["bits", "bits"]
    assert sum(said["binary_convolutions"].values()) == 2 and said["verified_on_images"] == 2
    assert said["error"] < 1e-4
    shown = dirnet(
        "export", "--run", converted, "--openvino", "--images", 1, "--out", tmp_path / "other.onnx"
    )
    assert shown.exit_code == 0, shown.output
    assert "2 of 2 binary layers on bits" in shown.stdout
    assert {path.name for path in tmp_path.glob("other.*")} == {"other.onnx", "other.xml", "other.bin"}
    again = api.export_openvino(converted, tmp_path / "api.xml", images=1).path
    for suffix in (".xml", ".bin"):
        assert again.with_suffix(suffix).read_bytes() == (converted / f"model{suffix}").read_bytes()


def test_the_file_has_the_rest_of_the_onnx_file(dirnet: Invoke, converted: Path) -> None:
    def stored() -> tuple[dict, int]:
        said = json.loads(result.stdout)
        kinds = [
            node.get_element_type().get_type_name()
            for node in read_for_cpu(converted / "model.xml").get_ops()
            if node.get_type_name() == "Constant"
        ]
        return said, kinds.count("i8")

    export = ("export", "--run", converted, "--openvino", "--images", 2)
    result = dirnet(*export, "--rest", "int8", "--json")
    assert result.exit_code == 0, result.output
    said, in_bytes = stored()
    assert said["rest"] == "int8"
    assert said["openvino"]["int8_layers"] == len(said["int8_layers"]) == 2
    # The weights of both, and their zero points.
    assert in_bytes >= 2
    result = dirnet(*export, "--json")
    said, in_bytes = stored()
    assert (said["rest"], said["openvino"]["int8_layers"], in_bytes) == ("float", 0, 0)
    shown = dirnet(*export, "--rest", "int8")
    assert "In INT8 there: 2 other layers." in " ".join(shown.stdout.split())


def test_the_function_writes_what_the_command_writes(dirnet: Invoke, converted: Path, tmp_path: Path) -> None:
    for rest, layers in (("float", 0), ("int8", 2)):
        told = api.export_openvino(converted, tmp_path / "mine.xml", images=2, rest=rest)
        dirnet("export", "--run", converted, "--openvino", "--images", 2, "--rest", rest)
        assert told.int8_layers == layers
        assert (tmp_path / "mine.bin").read_bytes() == (converted / "model.bin").read_bytes()
    with pytest.raises(UsageError, match="none of float, int8"):
        api.export_openvino(converted, rest="int4")


def test_nothing_is_written_where_openvinos_model_differs(
    refused: Callable[..., str], exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in exported.iterdir()}
    honest = export.build

    def wrong(student: nn.Module, *rest: object) -> BuiltModel:
        other = copy.deepcopy(student)
        with torch.no_grad():
            other.get_submodule("3").bias += 1
        return honest(other, *rest)

    monkeypatch.setattr(export, "build", wrong)
    assert "Nothing was written" in refused(1, "export", "--run", exported, "--openvino", "--images", 1)
    assert {file.name: file.stat().st_mtime_ns for file in exported.iterdir()} == before


def test_without_the_option_there_are_no_files(exported: Path) -> None:
    assert not (exported / "model.xml").exists() and not (exported / "model.bin").exists()


def test_the_rival_is_measured(dirnet: Invoke, exported: Path) -> None:
    result = dirnet(
        *("bench", "--run", exported, "--against", "openvino", "--engines", "fp32,binary"),
        *("--rounds", 1, "--json"),
    )
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert json.loads((exported / "bench.json").read_text()) == said
    engines = [engine["engine"] for engine in said["results"][0]["engines"]]
    assert engines == ["fp32", "binary", "openvino-fp32", "openvino"]
    assert said["rivals"]["openvino"]["float_layers"] == []
    assert said["rivals"]["openvino"]["smallest"] < 1e-4


def test_mistakes(refused: Callable[..., str], exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ("bench", "--run", exported, "--engines")
    assert "did you mean 'openvino'" in refused(2, *bench, "fp32,binary", "--against", "openvin")
    assert "none of fp32, int8, binary, stock" in refused(2, *bench, "fp32,openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "dirnet-convert[bench]" in refused(2, *bench, "fp32,binary", "--against", "openvino")
    assert "dirnet-convert[bench]" in refused(2, "export", "--run", exported, "--openvino")
