"""What every test may use: a seeded generator, a folder for runs, and the real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

SEED = int(os.environ.get("DIRNET_TEST_SEED", "20240917"))


@pytest.fixture(autouse=True)
def runs_below_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let no test write runs anywhere but below its own folder; return that folder."""
    root = tmp_path / "runs"
    monkeypatch.setenv("DIRNET_RUNS", str(root))
    return root


@pytest.fixture
def generator() -> torch.Generator:
    """Return a seeded generator; the seed (DIRNET_TEST_SEED) is printed, so that a failure can be
    repeated."""
    print(f"seed {SEED}")
    torch.manual_seed(SEED)
    return torch.Generator().manual_seed(SEED)


@pytest.fixture(scope="session")
def real_data_root() -> Path:
    """Return the folder of real images and weights; skip where it is missing, but fail in CI, where it must
    be."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("DIRNET_TEST_DATA", default))
    if root.is_dir():
        return root
    reason = f"no real data at {root}; set DIRNET_TEST_DATA"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason} (in CI nothing may skip for it)")
    pytest.skip(reason)
