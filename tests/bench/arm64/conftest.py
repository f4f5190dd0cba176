"""Real aarch64 programs, where this machine can build and emulate them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dirnet_convert.bench.arm64.tools import CMAKE, CROSS_COMPILER, EMULATOR, HOST_COMPILER, missing_tools


@pytest.fixture(scope="session")
def need() -> Callable[..., None]:
    """What skips a test where a program is missing; in CI all must be there."""

    def check(*names: str) -> None:
        missing = missing_tools(names)
        if missing and os.environ.get("CI"):
            pytest.fail(f"CI must have {', '.join(missing)}")
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)}")

    return check


@pytest.fixture(scope="session")
def emulation(need: Callable[..., None]) -> None:
    """Skip where arm64 cannot be emulated."""
    need(EMULATOR, CROSS_COMPILER, HOST_COMPILER, CMAKE)


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that come first in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder
