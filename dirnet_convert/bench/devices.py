"""Which machine a benchmark is for, and whether this is it."""

from __future__ import annotations

import enum
import platform

from dirnet_convert.errors import UsageError

_ARM64_NAMES = ("aarch64", "arm64")


class Device(enum.StrEnum):
    """Where the engines run: this machine's processor whatever it is, or an arm64 one."""

    CPU = "cpu"
    ARM64 = "arm64"


def require_device(device: Device, architecture: str = "") -> None:
    """Do nothing where ``device`` is this machine.

    Figures of another machine can only be taken there: emulators tell nothing about time.

    Raises:
        UsageError: an arm64 machine is asked for and this is another one; the sentence says what to do.
    """
    here = architecture or platform.machine()
    if device is Device.ARM64 and here.lower() not in _ARM64_NAMES:
        raise UsageError(
            f"This machine is {here}, not arm64: install dirnet-convert on the arm64 machine, copy the "
            "run folder there and run 'dirnet bench --device arm64 --run FOLDER' on it."
        )
