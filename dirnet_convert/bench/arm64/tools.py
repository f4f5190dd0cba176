"""Programs of other packages that the arm64 benchmarks start, and what to say where one is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dirnet_convert.errors import DirnetError

EMULATOR = "qemu-aarch64"
CROSS_COMPILER = "aarch64-linux-gnu-g++"
HOST_COMPILER = "cc"
CMAKE = "cmake"
NINJA = "ninja"
_PACKAGES = {
    EMULATOR: "qemu-user",
    CROSS_COMPILER: "g++-aarch64-linux-gnu",
    HOST_COMPILER: "gcc",
    CMAKE: "cmake",
    "ssh": "openssh-client",
    "adb": "adb",
}
_LAST_LINES = 3


def find_tool(name: str) -> Path | None:
    """Return the program ``name`` from PATH or from beside this Python, None where there is none."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    return Path(found) if found else None


def missing_tools(names: Sequence[str]) -> tuple[str, ...]:
    """Return those of ``names`` that are not installed."""
    return tuple(name for name in names if find_tool(name) is None)


def installation(names: Sequence[str]) -> str:
    """Return the command that installs ``names`` on Debian, Ubuntu and Raspberry Pi OS."""
    return f"apt install {' '.join(_PACKAGES[name] for name in names)}"


def require_tool(name: str, purpose: str) -> Path:
    """Return the program ``name``.

    Raises:
        DirnetError: it is not installed; the sentence says what it is needed for and how to install it.
    """
    path = find_tool(name)
    if path is None:
        raise DirnetError(f"{purpose} needs {name}, which is not installed; {installation([name])}.")
    return path


def run_tool(
    command: Sequence[object], what: str, *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run ``command`` and return what it printed.

    Raises:
        DirnetError: it cannot be started or fails; the sentence says ``what`` and ends with its last words.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd, env=env)
    except OSError as error:
        raise DirnetError(f"{what} failed: {words[0]} cannot be started ({error.strerror}).") from error
    if done.returncode != 0:
        raise DirnetError(f"{what} failed: {last_words(done.stdout + done.stderr) or done.returncode}.")
    return done.stdout


def last_words(text: str) -> str:
    """Return the last lines of a program's output on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[-_LAST_LINES:]).rstrip(".")
