"""What is brought to a board: the runner that it can start, and how."""

from __future__ import annotations

import enum
import shutil
import zipfile
from pathlib import Path

from dirnet_convert.bench.arm64 import board_runner
from dirnet_convert.bench.arm64.artifacts import (
    LOADER,
    arm64_build,
    arm64_library,
    runtime_library,
    system_libraries,
    system_library_names,
)
from dirnet_convert.bench.arm64.board import ran
from dirnet_convert.bench.arm64.job import JOB
from dirnet_convert.bench.arm64.transport import Transport
from dirnet_convert.errors import DirnetError

OPERATORS = "libdirnet_ops.so"
RUNTIME = "libonnxruntime.so"
_RUNNER = "dirnet_runner"
_SITE = "site"
# ONNX Runtime and numpy, unpacked.
_SITE_BYTES = 200_000_000


class RunnerKind(enum.StrEnum):
    """What runs the networks on the board."""

    PYTHON = "python"
    """The board's own Python, with ONNX Runtime from pip."""
    NATIVE = "native"
    """A program that brings all it needs with it."""


def fill_bundle(kind: RunnerKind, folder: Path, version: str) -> None:
    """Put the runner and the operators into ``folder``, with ONNX Runtime ``version`` if it is native.

    Raises:
        DirnetError: something cannot be built or fetched.
    """
    put_library(arm64_library(), folder / OPERATORS)
    if kind is RunnerKind.PYTHON:
        shutil.copy2(str(board_runner.__file__), folder / "board_runner.py")
        return
    shutil.copy2(arm64_build().runner, folder / _RUNNER)
    shutil.copy2(runtime_library(version), folder / RUNTIME)
    # With a loader and a C library of its own it runs beside any other, or none.
    for name, path in zip(system_library_names(), system_libraries(), strict=True):
        shutil.copy2(path, folder / name)
        (folder / name).chmod(0o755)
    (folder / _RUNNER).chmod(0o755)


def start_command(kind: RunnerKind, folder: str) -> str:
    """Return the command that runs the job in ``folder`` there."""
    if kind is RunnerKind.NATIVE:
        return f"cd {folder} && ./{LOADER} --library-path . ./{_RUNNER} {JOB}"
    return f"cd {folder} && PYTHONPATH={_SITE} python3 board_runner.py {JOB}"


def needed_bytes(kind: RunnerKind, folder: Path) -> int:
    """Return the room that the bundle in ``folder`` takes on the board, with what is installed beside it."""
    own = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return own + (_SITE_BYTES if kind is RunnerKind.PYTHON else 0)


def prepare_python(transport: Transport, folder: str) -> str:
    """See that the board's Python has ONNX Runtime, in ``folder`` if nowhere else; return Python's version.

    Raises:
        DirnetError: there is no 64-bit Python 3, or ONNX Runtime cannot be installed.
    """
    question = 'import platform, struct; print(platform.python_version(), struct.calcsize("P"))'
    asked = transport.run(f"python3 -c '{question}'")
    if asked.status != 0:
        raise DirnetError(
            f"{transport.name} has no python3; install it there (apt install python3 python3-pip), or use "
            "--runner native."
        )
    version, _, pointer = asked.output.strip().partition(" ")
    if pointer != "8":
        raise DirnetError(
            f"{transport.name} has a 32-bit Python on a 64-bit processor; install a 64-bit system, or use "
            "--runner native."
        )
    if transport.run("python3 -c 'import onnxruntime'").status == 0:
        return version
    site = f"{folder}/{_SITE}"
    pip = "python3 -m pip install --quiet --disable-pip-version-check --only-binary=:all:"
    done = transport.run(f"{pip} --target {site} onnxruntime 'numpy'")
    if done.status != 0:
        raise DirnetError(
            f"{transport.name} cannot install ONNX Runtime: {_pip_reason(done.errors + done.output)}."
        )
    ran(transport, f"PYTHONPATH={site} python3 -c 'import onnxruntime'", "Starting ONNX Runtime")
    return version


def _pip_reason(text: str) -> str:
    low = text.lower()
    if "no module named pip" in low:
        return "its Python has no pip; apt install python3-pip there, or use --runner native"
    if "no space left" in low:
        return "there is no space left; free some and run again"
    if any(
        words in low for words in ("connection", "resolution", "network", "timed out", "temporary failure")
    ):
        return "it reaches no package index; connect it to the network, or use --runner native"
    last = [line.strip() for line in text.splitlines() if line.strip()][-1:]
    return f"{last[0].rstrip('.') if last else 'pip gives no reason'}; or use --runner native"


def put_library(source: Path, target: Path) -> None:
    """Copy the operator library from ``source``, a shared object or a wheel that has one.

    Raises:
        DirnetError: the wheel has none.
    """
    if source.suffix != ".whl":
        shutil.copy2(source, target)
        return
    with zipfile.ZipFile(source) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(OPERATORS)]
        if not names:
            raise DirnetError(
                f"{source} has no {OPERATORS}; name a wheel of dirnet-convert built for aarch64."
            )
        target.write_bytes(wheel.read(names[0]))
