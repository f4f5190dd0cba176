"""Another machine behind ssh or adb: commands run there, files that go there and come back."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dirnet_convert.bench.arm64.tools import last_words, require_tool
from dirnet_convert.errors import DirnetError, UsageError

# ssh's own status, where the connection fails and not the command.
_SSH_FAILED = 255
_CONNECT_S = 15
_ALIVE_S = 5
_NO_SPACE = "no space left"
_ADB_LOST = ("no devices", "device offline", "unauthorized", "not found", "closed", "more than one device")


@dataclass(frozen=True)
class Done:
    """A command that ran on the other machine."""

    status: int
    output: str
    errors: str


class Transport(Protocol):
    """The way to one machine."""

    name: str
    scratch: str
    """Where folders can be made there, in words of its shell."""

    def run(self, command: str) -> Done:
        """Run ``command`` in the machine's shell; raises DirnetError where the connection fails."""

    def send(self, folder: Path, to: str) -> None:
        """Copy what is in ``folder`` to the folder ``to``; raises DirnetError where it does not fit there."""

    def fetch(self, folder: str, names: Sequence[str], to: Path) -> None:
        """Copy the files ``names`` of ``folder`` to ``to``; raises DirnetError."""

    def close(self) -> None:
        """Give the connection back."""


class Ssh:
    """A machine reached with the ssh client, one connection for everything.

    Raises:
        UsageError: ``target`` is no name of a machine.
        DirnetError: there is no ssh.
    """

    scratch = '"${HOME:-/tmp}"'

    def __init__(self, target: str) -> None:
        if not target or target.startswith("-") or any(character.isspace() for character in target):
            raise UsageError(f"--ssh takes USER@HOST, not '{target}'.")
        self.name = target
        self._program = require_tool("ssh", "A board over ssh")
        self._folder = tempfile.TemporaryDirectory()
        # A person who logs in with a password types it once.
        self._options = (
            *("-o", f"ControlPath={self._folder.name}/s", "-o", "ControlMaster=auto"),
            *("-o", "ControlPersist=60", "-o", f"ConnectTimeout={_CONNECT_S}"),
            *("-o", f"ServerAliveInterval={_ALIVE_S}", "-o", "ServerAliveCountMax=3"),
        )

    def run(self, command: str) -> Done:
        """Run ``command`` in the machine's shell; raises DirnetError where the connection fails."""
        done = self._run(command)
        return Done(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def send(self, folder: Path, to: str) -> None:
        """Copy what is in ``folder`` to the folder ``to``; raises DirnetError where it does not fit there."""
        with tempfile.TemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w") as archive:
                archive.add(folder, arcname=".")
            packed.seek(0)
            done = self._run(f"tar -C {to} -xf -", stdin=packed)
        if done.returncode != 0:
            raise _refused(self.name, done.stderr.decode(errors="replace"))

    def fetch(self, folder: str, names: Sequence[str], to: Path) -> None:
        """Copy the files ``names`` of ``folder`` to ``to``; raises DirnetError."""
        done = self._run(f"tar -C {folder} -cf - {' '.join(names)}")
        if done.returncode != 0:
            raise _refused(self.name, done.stderr.decode(errors="replace"))
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(to, filter="data")

    def close(self) -> None:
        """Give the connection back."""
        subprocess.run(
            [str(self._program), *self._options, "-O", "exit", self.name], capture_output=True, check=False
        )
        self._folder.cleanup()

    def _run(self, command: str, stdin: io.IOBase | None = None) -> subprocess.CompletedProcess[bytes]:
        words = [str(self._program), *self._options, self.name, command]
        done = subprocess.run(words, stdin=stdin or subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode == _SSH_FAILED:
            raise DirnetError(
                f"The connection to {self.name} failed or was lost "
                f"({last_words(done.stderr.decode(errors='replace')) or 'no answer'}); check that "
                f"'ssh {self.name}' works, and run again."
            )
        return done


class Adb:
    """A phone on the cable or in the network, as adb sees it (ANDROID_SERIAL names one of several).

    Raises:
        DirnetError: there is no adb.
    """

    name = "the phone"
    scratch = "/data/local/tmp"

    def __init__(self) -> None:
        self._program = require_tool("adb", "A phone over adb")

    def run(self, command: str) -> Done:
        """Run ``command`` in the machine's shell; raises DirnetError where the connection fails."""
        done = self._run("shell", command)
        return Done(done.returncode, done.stdout, done.stderr)

    def send(self, folder: Path, to: str) -> None:
        """Copy what is in ``folder`` to the folder ``to``; raises DirnetError where it does not fit there."""
        self._copy("push", f"{folder}/.", to)

    def fetch(self, folder: str, names: Sequence[str], to: Path) -> None:
        """Copy the files ``names`` of ``folder`` to ``to``; raises DirnetError."""
        for name in names:
            self._copy("pull", f"{folder}/{name}", str(to))

    def close(self) -> None:
        """Give the connection back."""

    def _copy(self, verb: str, source: str, to: str) -> None:
        done = self._run(verb, source, to)
        if done.returncode != 0:
            raise _refused(self.name, done.stdout + done.stderr)

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self._program), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        text = done.stderr.lower()
        if done.returncode != 0 and "error:" in text and any(words in text for words in _ADB_LOST):
            raise DirnetError(
                f"The connection to the phone failed or was lost ({last_words(done.stderr)}); check that "
                "'adb devices' lists it as 'device', and run again."
            )
        return done


def _refused(name: str, text: str) -> DirnetError:
    if _NO_SPACE in text.lower():
        return DirnetError(f"There is no space left on {name}; free some and run again.")
    return DirnetError(f"Copying to or from {name} failed: {last_words(text) or 'no reason given'}.")
