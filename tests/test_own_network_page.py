"""docs/own-network.md does what it says: its commands run as they stand there, one after the other."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "own-network.md"


def commands() -> list[list[str]]:
    blocks = re.findall(
        r"^```console\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def dirnet(arguments: list[str], folder: Path) -> dict:
    """Run a command of the page with --json in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dirnet_convert", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, (arguments, done.stderr)
    return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_page_runs(folder: Path) -> None:
    printed = {}
    for program, verb, *arguments in commands():
        assert program == "dirnet"
        # Fewer rounds are enough to see that it measures.
        short = ["--rounds", "2"] if verb == "bench" else []
        printed[verb] = dirnet([verb, *arguments, *short], folder)
    assert list(printed) == ["inspect", "pretrain", "convert", "finetune", "export", "bench"]

    layers = {layer["name"]: layer for layer in printed["inspect"]["layers"]}
    binary = {name for name, layer in layers.items() if layer["decision"] == "binarize"}
    assert binary == {
        *(f"block{block}.conv{conv}" for block in (1, 2) for conv in (1, 2)),
        "widen.near",
        "widen.far",
    }
    assert "GainConv2d" in layers["mix"]["reason"]
    assert all("pooled" in layers[f"block1.gate.{name}"]["reason"] for name in ("down", "up"))
    assert printed["convert"]["layers"] == printed["inspect"]["layers"]
    assert len(printed["convert"]["shortcuts"]) == 2
    assert printed["export"]["verified"]
    assert (folder / "runs" / "own" / "source" / "own_network.py").is_file()
    # Four epochs are far from the end, and chance is 10 %.
    assert printed["finetune"]["test_top1_percent"] > 60.0
