"""The whole way through the command line, and what holds for every command."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import Result

from dirnet_convert.cli.convert import original_words
from dirnet_convert.cli.main import app
from dirnet_convert.cli.options import console
from dirnet_convert.evaluate import Accuracy
from dirnet_convert.recipe import recipe_names
from dirnet_convert.run import RunFolder

Invoke = Callable[..., Result]
COMMANDS = sorted(command.name for command in app.registered_commands)


def _answer(dirnet: Invoke, *arguments: object) -> dict:
    result = dirnet(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_whole_way(
    dirnet: Invoke,
    exported_once: Path,
    network: str,
    quick: tuple[str, ...],
    runs_below_tmp: Path,
    tmp_path: Path,
) -> None:
    # exported_once is asked for only so that all of this is skipped where the library is not built.
    trained = _answer(dirnet, *("pretrain", network, "--data", "digits", "--epochs", 1, "--seed", 3), *quick)
    original = Path(trained["run"])
    assert original.parent == runs_below_tmp
    assert trained["epochs"] == 1
    converted = _answer(dirnet, "convert", original)
    run = Path(converted["run"])
    assert [p["name"] for p in converted["layers"] if p["decision"] == "binarize"] == ["0.1.0", "0.2.0"]
    assert converted["seed"] == 3
    assert converted["original"]["images"] == 40
    assert converted["original"]["top1_percent"] == pytest.approx(trained["test_top1_percent"])

    # From here on no command names the run: the newest one is meant.
    tuned = _answer(dirnet, "finetune")
    assert (tuned["run"], tuned["epochs"]) == (str(run), 1)
    written = _answer(dirnet, "export", "--onnx", "--images", 4)
    assert written["path"] == str(run / "model.onnx")
    assert written["verified"]
    accuracy = {e: _answer(dirnet, "eval", "--engine", e) for e in ("torch", "kernels", "stock")}
    assert len({item["top1_percent"] for item in accuracy.values()}) == 1
    assert accuracy["torch"]["top1_percent"] == pytest.approx(tuned["test_top1_percent"])
    assert {item["images"] for item in accuracy.values()} == {40}
    Image.new("L", (20, 30), 200).save(tmp_path / "digit.png")
    best = _answer(dirnet, "predict", tmp_path / "digit.png")["classes"]
    assert {item["name"] for item in best} <= set("0123456789")
    measured = _answer(dirnet, "bench", "--rounds", 1, "--engines", "fp32,binary")
    assert [e["engine"] for e in measured["results"][0]["engines"]] == ["fp32", "binary"]
    files = {path.name for path in RunFolder(run).path.iterdir()}
    assert {"run.toml", "model.onnx", "teacher.onnx", "bench.json", "metrics.jsonl"} <= files


def test_weights_of_ones_own_see_the_images_that_they_were_trained_with(
    dirnet: Invoke, network: str, pretrained: Path, quick: tuple[str, ...], tmp_path: Path
) -> None:
    """Neither pretrain from random weights nor convert normalizes digits as photographs."""
    known = _answer(dirnet, "eval", pretrained)
    weights = ("--data", "digits", "--weights", pretrained / "model.safetensors", *quick)
    converted = _answer(dirnet, "convert", network, *weights, "--out", tmp_path / "own")
    assert converted["original"]["top1_percent"] == known["top1_percent"]
    config, own = RunFolder(tmp_path / "own").read_config(), RunFolder(pretrained).read_config()
    assert (config.mean, config.std) == (own.mean, own.std)


def test_a_network_that_knows_nothing_of_the_images_is_pointed_out(
    dirnet: Invoke, network: str, pretrained: Path, quick: tuple[str, ...], tmp_path: Path
) -> None:
    weights = ("--data", "digits", "--weights", pretrained / "model.safetensors", *quick)
    wrong = ("--set", "data.mean=[9,9,9]", "--out", tmp_path / "own")
    shown = " ".join(dirnet("convert", network, *weights, *wrong).stdout.split())
    assert "hardly better than chance: are its weights" in shown


@pytest.mark.parametrize(
    ("top1_percent", "classes", "asked"),
    [(50, 2, True), (56, 2, False), (10, 10, True), (25, 10, False), (0.1, 1000, True), (5, 1000, False)],
)
def test_chance_depends_on_the_number_of_classes(top1_percent: float, classes: int, asked: bool) -> None:
    words = original_words(Accuracy(128, top1_percent, None, 1.0), classes)
    assert ("hardly better than chance" in words) == asked


def test_what_people_read(dirnet: Invoke, converted: Path, exported: Path, pretrained: Path) -> None:
    for words, *arguments in (
        ("2 of 4 layers are binarized", "inspect", pretrained),
        ("2 of 4 layers are binarized", "inspect", converted),
        ("Next: dirnet finetune", "convert", pretrained, "--out", converted.with_name("another")),
        ("Next: dirnet export", "finetune", converted),
        ("This run is trained", "finetune", "--run", converted),
        ("is trained already", "pretrain", pretrained),
        ("top-1", "eval", "--run", exported, "--limit", 8),
        ("Written to", "bench", exported, "--rounds", 1, "--engines", "fp32,binary"),
        ("digits-resnet20", "recipes"),
        ("[model]", "recipes", "digits-resnet20"),
        ("torch", "env"),
    ):
        result = dirnet(*arguments)
        assert result.exit_code == 0, result.output
        assert words in result.stdout


def test_a_long_path_with_brackets_is_whole(dirnet: Invoke, pretrained: Path, tmp_path: Path) -> None:
    out = tmp_path / "-".join(["a", *["very"] * 20, "long", "name [lr=0.1] [red]"])
    result = dirnet("convert", pretrained, "--out", out)
    assert result.exit_code == 0, result.output
    assert str(out).replace(" ", "") in "".join(result.stdout.split())


def test_the_next_command_is_one_that_a_shell_takes(dirnet: Invoke, pretrained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(pretrained, tmp_path / "my run [b]")
    line = dirnet("pretrain", run).stdout.strip().splitlines()[-1]
    assert shlex.split(line) == ["Next:", "dirnet", "convert", str(run), "--data", "digits"]


def test_a_run_brings_its_images_and_classes_to_inspect(dirnet: Invoke, pretrained: Path) -> None:
    layers = _answer(dirnet, "inspect", pretrained)["layers"]
    assert {layer["name"]: layer["decision"] for layer in layers} == {
        "0.0.0": "keep",
        "0.1.0": "binarize",
        "0.2.0": "binarize",
        "3": "keep",
    }
    # 16 output channels at 16 x 16 positions from 3 x 3 x 3 taps: 32 pixels, not a photograph's 224.
    assert layers[0]["macs"] == 16 * 16 * 16 * 27


def test_a_moved_run_is_still_whole(dirnet: Invoke, pretrained: Path, tmp_path: Path) -> None:
    moved = shutil.move(pretrained, tmp_path / "elsewhere")
    assert _answer(dirnet, "convert", moved, "--out", tmp_path / "out")["run"] == str(tmp_path / "out")
    assert _answer(dirnet, "eval", tmp_path / "out", "--limit", 8)["images"] == 8


def test_names_of_recipes_are_whole_on_a_narrow_terminal(
    dirnet: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_width", 80)
    words = dirnet("recipes").stdout.split()
    assert set(recipe_names()) <= set(words)


@pytest.mark.parametrize("name", ["env", "recipes"])
def test_json_alone_on_standard_output(dirnet: Invoke, name: str) -> None:
    assert _answer(dirnet, name)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(dirnet: Invoke, name: str) -> None:
    result = dirnet(name, "--help")
    assert result.exit_code == 0
    assert "Example:" in result.stdout
    assert f"dirnet {name}" in result.stdout


def test_help_loads_no_framework() -> None:
    check = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from dirnet_convert.cli.main import app\n"
        "for name in [None, *(c.name for c in app.registered_commands)]:\n"
        "    assert CliRunner().invoke(app, [*([name] if name else []), '--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'torchvision', 'timm', 'onnx', 'onnxruntime', 'numpy', 'sklearn')"
        " if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", check], capture_output=True, text=True, check=True, env=os.environ
    )
    assert ast.literal_eval(done.stdout) == []


def test_the_commands_of_the_program_are_all_there(dirnet: Invoke) -> None:
    result = dirnet("--help")
    assert result.exit_code == 0
    for name in ("convert", "finetune", "export", "bench", "pretrain", "eval", "predict", "inspect", "env"):
        assert name in result.stdout
    assert dirnet("--version").stdout.startswith("dirnet ")
    unknown = dirnet("conver")
    assert unknown.exit_code == 2
    assert "convert" in unknown.stderr


def test_an_old_encoding_gets_question_marks() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dirnet_convert", "recipes"],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert b"digits-resnet20" in done.stdout


def test_report_is_a_page_beside_the_run(dirnet: Invoke, converted: Path, tmp_path: Path) -> None:
    read = dirnet("report", converted)
    assert read.exit_code == 0 and str(converted / "report.html") in "".join(read.output.split("\n"))
    page = (converted / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "<h2>Plan</h2>" in page
    made = dirnet("report", "--run", converted, "--out", tmp_path / "page.html", "--json")
    assert json.loads(made.stdout)["epochs"] == 0
    assert (tmp_path / "page.html").read_text() == page
    refused = dirnet("report", "--run", converted, "--out", tmp_path)
    assert refused.exit_code == 2 and "is a folder" in refused.output


def test_a_training_that_runs_away_says_where_and_goes_on_at_a_lower_rate(
    dirnet: Invoke, refused: Callable[..., str], converted: Path
) -> None:
    options = ("--epochs", 2, "--set", "finetune.warmup_epochs=0")
    sentence = refused(1, "finetune", "--run", converted, *options, "--set", "finetune.lr=1e38", "--json")
    assert re.search(r"diverged at step \d+: .*'(\d\.)+", sentence), sentence
    assert "--set finetune.lr=2.5e+37" in sentence
    done = dirnet("finetune", "--run", converted, *options, "--set", "finetune.lr=0.01", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["epochs"] == 2


def test_tensorboard_files_lie_in_the_run(dirnet: Invoke, converted: Path) -> None:
    pytest.importorskip("tensorboard")
    assert dirnet("finetune", "--run", converted, "--tensorboard", "--json").exit_code == 0
    assert list((converted / "tensorboard").glob("events.out.tfevents.*"))
