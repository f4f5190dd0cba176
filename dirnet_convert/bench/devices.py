"""Which machine a benchmark is for, and by which way it is reached."""

from __future__ import annotations

import enum
import platform

from dirnet_convert.bench.arm64.tools import (
    CMAKE,
    CROSS_COMPILER,
    EMULATOR,
    HOST_COMPILER,
    installation,
    missing_tools,
)
from dirnet_convert.errors import UsageError

_ARM64_NAMES = ("aarch64", "arm64")
_EMULATION = (EMULATOR, CROSS_COMPILER, HOST_COMPILER, CMAKE)


class Device(enum.StrEnum):
    """Where the engines run: this machine's processor whatever it is, or an arm64 one."""

    CPU = "cpu"
    ARM64 = "arm64"


class Way(enum.StrEnum):
    """How a benchmark gets to its device."""

    NATIVE = "native"
    """This machine is the device."""
    SSH = "ssh"
    ADB = "adb"
    EMULATED = "emulated"
    """No arm64 machine at all: instructions are counted, and nothing is timed."""


def choose_way(device: Device, ssh: str = "", adb: bool = False, architecture: str = "") -> Way:
    """Return how ``device`` can be reached from here, ``ssh`` and ``adb`` being what was asked for.

    Raises:
        UsageError: the wishes contradict each other, or no way is open; the sentence says what to do.
    """
    if device is Device.CPU:
        if ssh or adb:
            raise UsageError("--ssh and --adb are for another machine; add --device arm64.")
        return Way.NATIVE
    if ssh and adb:
        raise UsageError("--ssh and --adb name two machines; choose one of them.")
    if ssh:
        return Way.SSH
    if adb:
        return Way.ADB
    here = architecture or platform.machine()
    if here.lower() in _ARM64_NAMES:
        return Way.NATIVE
    missing = missing_tools(_EMULATION)
    if not missing:
        return Way.EMULATED
    raise UsageError(
        f"This machine is {here}, not arm64: run this on an arm64 machine itself, or name a board with --ssh "
        "USER@HOST or a phone with --adb, or let an emulator count instructions, for which "
        f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing ({installation(missing)})."
    )
