"""A benchmark over a real ssh connection to this machine, which plays the board."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dirnet_convert.bench.arm64.artifacts import LIBRARY_VARIABLE
from dirnet_convert.bench.arm64.bundle import RunnerKind
from dirnet_convert.bench.arm64.emulator import open_emulator
from dirnet_convert.bench.arm64.remote import RemoteOptions, run_remote
from dirnet_convert.bench.arm64.tools import EMULATOR, find_tool
from dirnet_convert.bench.arm64.transport import Ssh
from dirnet_convert.bench.engines import EngineKind
from dirnet_convert.bench.measure import MeasureOptions
from dirnet_convert.bench.report import to_json
from dirnet_convert.bench.suite import BenchOptions
from dirnet_convert.errors import DirnetError
from dirnet_convert.runtime import library_path

OPTIONS = BenchOptions(measure=MeasureOptions(rounds=2, block_ms=5, warmup_calls=1))
_START_S = 10


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def sshd() -> str:
    """Return the ssh server; skip where there is none, which must not happen in CI."""
    found = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None and os.environ.get("CI"):
        pytest.fail("CI must have sshd")
    if found is None or shutil.which("ssh") is None:
        pytest.skip("no ssh server or client")
    return found


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@pytest.fixture
def board(tmp_path: Path, bin_folder: Path) -> Iterator[Path]:
    """An ssh server whose shell says that it is arm64; yields its folder, `home` being the user's there."""
    server = sshd()
    folder = tmp_path / "board"
    home = folder / "home"
    fake = folder / "bin"
    home.mkdir(parents=True)
    fake.mkdir()
    for name in ("host_key", "user_key"):
        make_key(folder / name)
    script(fake / "uname", '[ "$1" = -m ] && echo aarch64 || echo "Linux 6.6"')
    (fake / "python3").symlink_to(sys.executable)
    emulated = f"{find_tool(EMULATOR)} -L {folder}/prefix ./ld-linux"
    script(
        folder / "shell",
        f"PATH={fake}:$PATH HOME={home}; export PATH HOME\n"
        f'exec sh -c "$(echo "$SSH_ORIGINAL_COMMAND" | sed "s#[.]/ld-linux#{emulated}#")"',
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "authorized").write_text((folder / "user_key.pub").read_text())
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized\nForceCommand {folder}/shell\nPermitRootLogin yes\n"
        f"PasswordAuthentication no\nUsePAM no\n"
    )
    (folder / "config").write_text(
        f"Host board\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n"
        f" IdentityFile {folder}/user_key\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n"
        " LogLevel ERROR\n"
    )
    script(bin_folder / "ssh", f'exec {shutil.which("ssh")} -F {folder}/config "$@"')
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    command = [server, "-D", "-e", "-f", str(folder / "sshd_config")]
    with subprocess.Popen(command, stderr=(folder / "log").open("w")) as process:
        try:
            wait_for(port, folder / "log")
            yield folder
        finally:
            process.terminate()


def wait_for(port: int, log: Path) -> None:
    until = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def transport() -> Iterator[Ssh]:
    opened = Ssh("board")
    yield opened
    opened.close()


def check(result: dict, folder: Path) -> None:
    (part,) = result["results"]
    assert [engine["engine"] for engine in part["engines"]] == ["fp32", "binary"]
    assert all(engine["median_ms"] > 0 for engine in part["engines"])
    assert [row["module"] for row in part["modules"]] == ["body.conv"]
    assert result["machine"]["architecture"] == "aarch64"
    assert result["isa"] == "neon"
    assert any("Measured on board" in note for note in result["notes"])
    # Nothing is left behind.
    assert list((folder / "home").glob("dirnet.*")) == []


def test_with_the_boards_python(
    board: Path, transport: Ssh, models: dict[EngineKind, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, str(library_path()))
    result = to_json(run_remote(transport, models, OPTIONS, RemoteOptions(RunnerKind.PYTHON)))
    check(result, board)
    assert result["machine"]["python"].startswith("3.")


@pytest.mark.slow
@pytest.mark.usefixtures("emulation")
def test_real_arm64_programs_with_an_emulator_as_the_shell(
    board: Path, transport: Ssh, models: dict[EngineKind, Path]
) -> None:
    with open_emulator() as emulator:
        shutil.copytree(emulator.prefix / "proc", board / "prefix" / "proc")
        result = to_json(run_remote(transport, models, OPTIONS, RemoteOptions(RunnerKind.NATIVE)))
    check(result, board)
    assert result["machine"]["python"] == "none"


def test_a_32_bit_system(board: Path, transport: Ssh, models: dict[EngineKind, Path]) -> None:
    script(board / "bin" / "uname", "echo armv7l")
    with pytest.raises(DirnetError, match=r"board runs a 32-bit system.*64-bit"):
        run_remote(transport, models, OPTIONS, RemoteOptions())


def test_a_machine_without_a_server(bin_folder: Path, models: dict[EngineKind, Path]) -> None:
    sshd()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        transport = Ssh(f"ssh://nobody@127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(DirnetError, match=r"The connection to .* failed or was lost .*refused"):
        run_remote(transport, models, OPTIONS, RemoteOptions())
    transport.close()


def test_the_connection_is_lost_while_measuring(
    board: Path,
    transport: Ssh,
    models: dict[EngineKind, Path],
    monkeypatch: pytest.MonkeyPatch,
    need: Callable[..., None],
) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, str(library_path()))
    (board / "bin" / "python3").unlink()
    # The server's own process is the parent of the shell that was started for the connection.
    script(
        board / "bin" / "python3",
        f'case "$1" in board_runner.py) kill -9 $(ps -o ppid= -p $PPID); sleep 5;; '
        f'*) exec {shlex.quote(sys.executable)} "$@";; esac',
    )
    with pytest.raises(DirnetError, match="The connection to board failed or was lost"):
        run_remote(transport, models, OPTIONS, RemoteOptions())
