"""The pages: their links lead somewhere, and the README's figures are those of the stored files."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name} links to {target}"
        if heading:
            assert heading in _headings(path), f"{page.name} links to {target}"


def _headings(page: Path) -> set[str]:
    lines = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def _stored(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def _accuracy(name: str) -> str:
    return f"{_stored(name)['top1_percent']:.2f}"


def _speed(name: str, engine: str, than: str, threads: int = 1, digits: int = 1) -> str:
    """Return how many times as fast ``engine`` is, rounded down: the smaller of the two ways to take it."""
    results = next(r for r in _stored(name)["results"] if r["threads"] == threads)
    engines = {e["engine"]: e for e in results["engines"]}
    ratios = [engines[than]["median_ms"] / engines[engine]["median_ms"]]
    if than == "fp32":
        ratios.append(engines[engine]["times_fp32"])
    elif engines[than].get("twin") == engine:
        ratios.append(engines[than]["twin_speedup"])
    scale = 10**digits
    return f"{math.floor(min(ratios) * scale) / scale:.{digits}f}x"


def _smaller(name: str) -> str:
    return f"{math.floor(_stored(name)['ratio'] * 10) / 10:.1f}x"


ROWS = {
    "ResNet-20 on CIFAR-10": [
        lambda: _accuracy("cifar10-resnet20/eval-fp32.json"),
        lambda: _accuracy("cifar10-resnet20/eval-torch.json"),
        lambda: _accuracy("cifar10-resnet20/eval-kernels.json"),
        lambda: _accuracy("cifar10-resnet20/eval-stock.json"),
        lambda: _speed("cifar10-resnet20/bench.json", "binary", "fp32"),
        lambda: _smaller("cifar10-resnet20/export.json"),
    ],
    "The same in 60 epochs": [
        lambda: _accuracy("cifar10-resnet20-60-epochs/eval-torch.json"),
        lambda: _accuracy("cifar10-resnet20-60-epochs/eval-kernels.json"),
        lambda: _accuracy("cifar10-resnet20-60-epochs/seed-1/eval-torch.json"),
        lambda: _accuracy("cifar10-resnet20-60-epochs/seed-1/eval-kernels.json"),
    ],
    "ResNet-18 on photographs": [
        lambda: _accuracy("imagenette-resnet18/eval-fp32.json"),
        lambda: _accuracy("imagenette-resnet18/eval-torch.json"),
        lambda: _accuracy("imagenette-resnet18/eval-kernels.json"),
        lambda: _accuracy("imagenette-resnet18/eval-stock.json"),
        lambda: _speed("imagenette-resnet18/bench.json", "binary", "fp32"),
        lambda: _smaller("imagenette-resnet18/export.json"),
    ],
    "whole ResNet-18, 224 x 224": [
        lambda: _speed("openvino/resnet18.json", "binary", "fp32"),
        lambda: _speed("openvino/resnet18-int8-rest.json", "binary", "fp32"),
        lambda: _speed("openvino/resnet18-int8-rest.json", "binary", "int8"),
    ],
    "the same network in OpenVINO": [
        lambda: _speed("openvino/resnet18.json", "binary", "openvino", digits=2),
        lambda: _speed("openvino/resnet18.json", "binary", "openvino", 2, digits=2),
        lambda: _speed("openvino/resnet18-int8-rest.json", "binary", "openvino", digits=2),
        lambda: _speed("openvino/resnet18-int8-rest.json", "binary", "openvino", 2, digits=2),
    ],
    "whole ResNet-18 on an Intel Xeon": [
        lambda: _speed("openvino/intel-resnet18.json", "binary", "fp32"),
        lambda: _speed("openvino/intel-resnet18.json", "binary", "openvino", digits=2),
    ],
    "whole ResNet-18 on an AMD EPYC that has AVX2 alone": [
        lambda: _speed("avx2/zen3-resnet18.json", "binary", "fp32"),
        lambda: _speed("avx2/zen3-resnet18-later.json", "binary", "fp32"),
        lambda: _speed("avx2/zen3-resnet18.json", "binary", "openvino"),
        lambda: _speed("avx2/zen3-resnet18-later.json", "binary", "openvino"),
    ],
}


@pytest.mark.parametrize("row", ROWS)
def test_the_readmes_figures_are_stored_and_no_better(row: str) -> None:
    line = next(line for line in README.splitlines() if line.startswith(f"| {row}"))
    for figure in ROWS[row]:
        assert figure() in line
