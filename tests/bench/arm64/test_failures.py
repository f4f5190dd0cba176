"""What can go wrong on a board or a phone, played by programs that pretend to be ssh and adb."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from dirnet_convert.bench.arm64.artifacts import LIBRARY_VARIABLE
from dirnet_convert.bench.arm64.board import ask_board
from dirnet_convert.bench.arm64.bundle import RunnerKind
from dirnet_convert.bench.arm64.cores import CoreChoice, choose_cores
from dirnet_convert.bench.arm64.emulator import open_emulator
from dirnet_convert.bench.arm64.remote import RemoteOptions, run_remote
from dirnet_convert.bench.arm64.tools import EMULATOR, find_tool
from dirnet_convert.bench.arm64.transport import Adb, Ssh
from dirnet_convert.bench.engines import EngineKind
from dirnet_convert.bench.measure import MeasureOptions
from dirnet_convert.bench.report import to_json
from dirnet_convert.bench.suite import BenchOptions
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.runtime import library_path

OPTIONS = BenchOptions(measure=MeasureOptions(rounds=1, block_ms=5, warmup_calls=1))
Models = dict[EngineKind, Path]
_HIDING = "sed 's#/sys/devices#/nowhere#g'"


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def board(tmp_path: Path, bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A board whose ssh is a shell on this machine; yields the folder of its programs."""
    monkeypatch.setenv(LIBRARY_VARIABLE, str(library_path()))
    fake = tmp_path / "board"
    (fake / "home").mkdir(parents=True)
    script(fake / "uname", '[ "$1" = -m ] && echo aarch64 || echo "Linux 6.6"')
    script(
        bin_folder / "ssh",
        f"for last; do :; done\nPATH={fake}:$PATH HOME={fake}/home; export PATH HOME\n"
        '[ "$last" = board ] || exec sh -c "$last"',
    )
    return fake


def python(text: str) -> str:
    """Return a python3 that fails in one way, and is this one otherwise."""
    return f'case "$*" in {text} *) exec {shlex.quote(sys.executable)} "$@";; esac'


@pytest.mark.parametrize(
    ("program", "text", "words"),
    [
        ("uname", "echo i686", "board runs i686, not 64-bit ARM"),
        (
            "mktemp",
            "echo 'mktemp: Read-only file system' >&2; exit 1",
            "Making a folder failed on board: .*Read-only",
        ),
        (
            "df",
            "printf 'Filesystem\\n/dev/root 100 90 10 90% /\\n'",
            "no space on board: .* MB are needed, 0 MB",
        ),
        ("tar", "echo 'tar: x: Cannot write: No space left on device' >&2; exit 2", "no space left on board"),
        ("python3", "exit 127", "no python3; .* or use --runner native"),
        ("python3", "echo 3.11.2 4", "32-bit Python on a 64-bit processor"),
        (
            "python3",
            python("*import?onnxruntime*) exit 1;; *-m?pip*) echo 'No module named pip' >&2; exit 1;;"),
            "its Python has no pip",
        ),
        (
            "python3",
            python(
                "*import?onnxruntime*) exit 1;; "
                "*-m?pip*) echo 'Temporary failure in name resolution' >&2; exit 1;;"
            ),
            "connect it to the network, or use --runner native",
        ),
        (
            "python3",
            python("*import?onnxruntime*) exit 1;; *-m?pip*) echo 'No space left on device' >&2; exit 1;;"),
            "cannot install ONNX Runtime: there is no space left",
        ),
        (
            "python3",
            python("board_runner*) echo 'runtime 1.31.1'; echo 'error file not found'; exit 1;;"),
            "The runner on board failed: file not found",
        ),
        (
            "python3",
            python("board_runner*) echo 'runtime 1.31.1'; exit 1;;"),
            "The runner on board ended before it was done",
        ),
        (
            "python3",
            python("board_runner*) echo 'Killed' >&2; exit 137;;"),
            "The runner cannot start on board: Killed",
        ),
    ],
)
def test_a_board_that_cannot(board: Path, models: Models, program: str, text: str, words: str) -> None:
    script(board / program, text)
    transport = Ssh("board")
    try:
        with pytest.raises(DirnetError, match=words):
            run_remote(transport, models, OPTIONS, RemoteOptions())
    finally:
        transport.close()
    # Where a folder was made there, it is gone again.
    assert not list((board / "home").glob("dirnet.*"))


def test_a_batch_that_a_model_does_not_take(board: Path, models: Models) -> None:
    fixed = onnx.load(str(models[EngineKind.BINARY]))
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(fixed, str(models[EngineKind.BINARY]))
    transport = Ssh("board")
    options = dataclasses.replace(OPTIONS, batch=2)
    with pytest.raises(UsageError, match=r"model\.onnx takes batches of 1 only; bench it with --batch 1"):
        run_remote(transport, models, options, RemoteOptions())
    transport.close()


@pytest.mark.parametrize(("count", "cores"), [("echo 3", 3), ("exit 127", 1)])
def test_a_board_that_hides_its_cores(board: Path, bin_folder: Path, count: str, cores: int) -> None:
    script(board / "nproc", count)
    hidden = (bin_folder / "ssh").read_text().replace('sh -c "$last"', f'sh -c "$(echo "$last" | {_HIDING})"')
    script(bin_folder / "ssh", hidden.removeprefix("#!/bin/sh\n"))
    transport = Ssh("board")
    capacities = ask_board(transport).capacities
    transport.close()
    assert choose_cores(capacities, CoreChoice.BIG) == tuple(range(cores))


def test_more_threads_than_cores(board: Path, models: Models) -> None:
    transport = Ssh("board")
    with pytest.raises(UsageError, match="500 threads are asked for"):
        run_remote(transport, models, BenchOptions(threads=(500,)), RemoteOptions())
    transport.close()


@pytest.mark.parametrize("target", ["", "-oProxyCommand=x", "pi@board; ls"])
def test_a_target_that_is_none(target: str) -> None:
    with pytest.raises(UsageError, match="--ssh takes USER@HOST"):
        Ssh(target)


def test_a_library_that_is_no_file(board: Path, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, "/nowhere/lib.so")
    transport = Ssh("board")
    with pytest.raises(DirnetError, match=r"names /nowhere/lib\.so, which is no file"):
        run_remote(transport, models, OPTIONS, RemoteOptions())
    transport.close()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("error: no devices/emulators found", "connection to the phone failed .*'adb devices'"),
        ("error: device unauthorized.", "connection to the phone failed"),
    ],
)
def test_no_phone(bin_folder: Path, models: Models, error: str, words: str) -> None:
    script(bin_folder / "adb", f"echo '{error}' >&2; exit 1")
    with pytest.raises(DirnetError, match=words):
        run_remote(Adb(), models, OPTIONS, RemoteOptions(RunnerKind.NATIVE))


def test_no_adb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        DirnetError, match="A phone over adb needs adb, which is not installed; apt install adb"
    ):
        Adb()


@pytest.fixture
def phone(tmp_path: Path, bin_folder: Path) -> Path:
    """A phone whose adb is a shell on this machine that emulates what is arm64; yields its folder."""
    folder = tmp_path / "phone"
    (folder / "tmp").mkdir(parents=True)
    script(folder / "uname", '[ "$1" = -m ] && echo aarch64 || echo "Linux 5.10"')
    emulated = f"{find_tool(EMULATOR)} -L {folder}/prefix ./ld-linux"
    script(
        bin_folder / "adb",
        f"PATH={folder}:$PATH; export PATH\nverb=$1; shift\n"
        'case "$verb" in\n'
        f'shell) command=$(echo "$1" | sed "s#[.]/ld-linux#{emulated}#; s#/data/local/tmp#{folder}/tmp#")\n'
        'exec sh -c "$command";;\n'
        'push) exec cp -r "$1" "$2";;\npull) exec cp "$1" "$2";;\nesac',
    )
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("emulation")
def test_a_phone_with_an_emulator_as_its_processor(phone: Path, models: Models) -> None:
    with open_emulator() as emulator:
        shutil.copytree(emulator.prefix / "proc", phone / "prefix" / "proc")
        result = to_json(run_remote(Adb(), models, OPTIONS, RemoteOptions(RunnerKind.NATIVE)))
    assert [engine["engine"] for engine in result["results"][0]["engines"]] == ["fp32", "binary"]
    assert not list((phone / "tmp").iterdir())


def test_a_phone_without_room(
    phone: Path, bin_folder: Path, models: Models, emulation: None, need: Callable[..., None]
) -> None:
    adb = (bin_folder / "adb").read_text()
    script(bin_folder / "adb", adb.replace('exec cp -r "$1" "$2"', "echo 'No space left on device'; exit 1"))
    with pytest.raises(DirnetError, match="no space left on the phone"):
        run_remote(Adb(), models, OPTIONS, RemoteOptions(RunnerKind.NATIVE))
