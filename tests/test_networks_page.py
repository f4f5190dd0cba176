"""docs/networks.md shows what is stored, and what is stored is of the networks that are there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "networks.md"
FOLDER = ROOT / "docs" / "results" / "networks"


def printed(code: str) -> str:
    """Run ``code`` in the folder of the page's scripts and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=FOLDER
    )
    return done.stdout


def test_the_tables_are_those_of_the_stored_figures() -> None:
    tables = json.loads(
        printed("import json, table; print(json.dumps([table.table(n) for n in table.TABLES]))")
    )
    page = PAGE.read_text(encoding="utf-8")
    assert len(tables) == 3
    for table in tables:
        assert table in page


def test_every_stored_file_is_of_a_network_of_the_page() -> None:
    keys = json.loads(printed("import json, networks; print(json.dumps([n.key for n in networks.NETWORKS]))"))
    assert {path.stem for path in FOLDER.glob("*.json")} <= set(keys)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_stored_figures_make_sense(path: Path) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))
    files = stored["files"]
    assert 0 < files["binary_layers"] < files["layers"]
    assert 0 < files["binary_macs"] < files["macs"]
    assert files["binary_bytes"] < files["fp32_bytes"]
    # A float is four bytes and a bit an eighth of one; names and operators' bodies come on top.
    assert files["fp32_bytes"] > 4 * files["weights"]
    assert (
        files["binary_bytes"] > 4 * (files["weights"] - files["binary_weights"]) + files["binary_weights"] / 8
    )
