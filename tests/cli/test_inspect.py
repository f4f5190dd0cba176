"""dirnet inspect: the table on wide and narrow terminals, its JSON, and the sweep over all networks."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import Result

from dirnet_convert.cli.plan_table import plan_table, plan_totals, trace_lines
from dirnet_convert.convert.policy import Decision, LayerPlan
from dirnet_convert.coverage.candidates import Candidate, Library

Invoke = Callable[..., Result]

PLAN = (
    LayerPlan(
        "stem", "Conv2d", "3 -> 8, 3x3", 216, 1_000_000, Decision.KEEP, "first layer", "--binarize 'stem'"
    ),
    LayerPlan(
        "body", "Conv2dSame", "8 -> 8, 3x3", 576, 3_000_000, Decision.BINARIZE, "inside", "", "slow here"
    ),
)


def _printed(width: int, plan: tuple[LayerPlan, ...] = PLAN) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(plan_table(plan, {"entropy": {"body": "0.987"}}, width))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_a_layer_has_its_share_its_bits_the_reason_the_remedy_and_the_caution(width: int) -> None:
    stem, body = (
        next(line for line in _printed(width).splitlines() if name in line) for name in ("stem", "body")
    )
    assert "25.0 %" in stem and " 32 " in stem and "1.0" in stem
    assert "75.0 %" in body and " 1 " in body and "0.987" in body
    words = " ".join(_printed(width).replace("│", " ").split())
    remedy = "--binarize NAME" if width == 80 else "--binarize 'stem'"
    for text in ("first layer", remedy, "slow here", "Conv2dSame", "8 -> 8,"):
        assert text in words
    assert all(len(line) <= width for line in _printed(width).splitlines())


def test_a_wide_terminal_has_a_line_for_a_layer() -> None:
    wide = [line for line in _printed(200).splitlines() if line.startswith("│")]
    assert len(wide) == len(PLAN)


def test_what_could_not_be_traced_is_named_once_for_each_cause() -> None:
    assert trace_lines("", {}) == []
    (whole,) = trace_lines("it branches", {})
    assert "it branches" in whole and "module tree" in whole
    first, second = trace_lines("", {**{f"block.{i}": "a loop" for i in range(6)}, "head": "a branch"})
    assert "(a loop): block.0, block.1, block.2, block.3 and 2 more." in first
    assert "(a branch): head." in second


def test_without_a_graph_operations_are_unknown() -> None:
    import dataclasses

    plan = tuple(dataclasses.replace(layer, macs=0) for layer in PLAN)
    assert _printed(200, plan).count("?") == 2 * len(plan)
    assert plan_totals(plan) == "1 of 2 layers are binarized: 72.7 % of the weights."
    assert plan_totals(PLAN).endswith("72.7 % of the weights, 75.0 % of the multiply-adds.")


def test_json_has_every_field_of_the_plan(dirnet: Invoke, pretrained: Path) -> None:
    answer = json.loads(dirnet("inspect", pretrained, "--json").stdout)
    assert all({"caution", "remedy", "reason", "macs"} <= set(layer) for layer in answer["layers"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Name a MODEL"),
        (("resnet18", "--all"), "leave MODEL away"),
        (("--all", "--keep", "x"), "leave --keep away"),
        (("--all", "--image-size", "64"), "leave --image-size away"),
        (("resnet18", "--jobs", "2"), "--jobs belongs to --all"),
        (("resnet18", "--resume"), "--resume belongs to --all"),
        (("--all", "--library", "keras"), "No library 'keras'"),
        (("--all", "--out", "x.txt"), "ends neither in .md nor in .json"),
        (("--all", "--resume"), "name them with --out"),
        (("--all", "--resume", "--out", "nowhere.json"), "There is no nowhere.json"),
    ],
)
def test_options_that_do_not_go_together(dirnet: Invoke, arguments: tuple[str, ...], words: str) -> None:
    result = dirnet("inspect", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


NETWORKS = """
from torch import nn


def good(num_classes=10):
    middle = (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4), *middle, nn.Linear(8, 10))


def bad(num_classes=10):
    raise ValueError("not today")
"""


@pytest.fixture
def two_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the libraries have two networks only: one that works and one that does not."""
    path = tmp_path / "nets.py"
    path.write_text(NETWORKS)
    listed = tuple(Candidate(f"{path}:{name}", Library.TIMM, "nets") for name in ("good", "bad"))
    monkeypatch.setattr("dirnet_convert.coverage.candidates.candidates", lambda library: listed)


@pytest.mark.usefixtures("two_networks")
def test_a_sweep_writes_its_page_and_goes_on_from_it(dirnet: Invoke, tmp_path: Path) -> None:
    page = tmp_path / "coverage.md"
    result = dirnet("inspect", "--all", "--library", "timm", "--out", page, "--jobs", 2)
    assert result.exit_code == 0, result.output
    assert "1 of 2 convolutional networks went the whole way (50.0 %)" in result.stdout
    text = page.read_text()
    assert f"dirnet inspect --all --library timm --jobs 2 --out {page}" in text
    assert "| timm, the smallest network of each family | 2 | 2 | 1 | 50.0 % |" in text
    assert "bad | build | " in text and "not today" in text
    before = json.loads(page.with_suffix(".json").read_text())
    (tmp_path / "nets.py").write_text(NETWORKS.replace('raise ValueError("not today")', "return good()"))
    result = dirnet("inspect", "--all", "--library", "timm", "--out", page, "--resume", "--json")
    assert result.exit_code == 0, result.output
    after = json.loads(result.stdout)
    assert after == json.loads(page.with_suffix(".json").read_text())
    assert [n["result"]["outcome"] for n in after["networks"]] == ["ok", "ok"]
    # What had succeeded was not tried again: even its time is the same.
    assert after["networks"][0] == before["networks"][0]
