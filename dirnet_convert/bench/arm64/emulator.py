"""qemu-user with a plugin that counts: aarch64 programs on another machine, every instruction counted."""

from __future__ import annotations

import contextlib
import enum
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dirnet_convert.bench.arm64.artifacts import arm64_build, counting_plugin, system_libraries
from dirnet_convert.bench.arm64.tools import EMULATOR, last_words, require_tool
from dirnet_convert.errors import DirnetError

CPU = "cortex-a72"
# ONNX Runtime reads this file to learn what the processor is; that of an x86 machine makes it crash.
_CPU_INFO = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""


class Counted(enum.Enum):
    """Which instructions the emulator counts."""

    ALL = ""
    VECTOR = ",vector=on"


@dataclass(frozen=True)
class Emulator:
    """An emulator set up for the runner, whose clock shows counted instructions."""

    program: Path
    prefix: Path
    plugin: Path
    runner: Path

    def run(self, folder: Path, job: Path, counted: Counted) -> str:
        """Run the runner on ``job`` in ``folder`` and return what it printed.

        Raises:
            DirnetError: the emulator cannot be started or does not take the plugin.
        """
        counter = folder / "counter.bin"
        command = [
            *(str(self.program), "-cpu", CPU, "-L", str(self.prefix)),
            *("-plugin", f"{self.plugin},counter={counter}{counted.value}", str(self.runner), str(job)),
        ]
        environment = os.environ | {"DIRNET_INSTRUCTION_COUNTER": str(counter)}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=folder, env=environment
        )
        if done.returncode not in (0, 1) or (done.returncode == 1 and not done.stdout):
            raise DirnetError(
                f"{EMULATOR} failed: {last_words(done.stderr) or done.returncode}; version 6, 7 or 8 "
                "with -plugin is needed (Debian's and Ubuntu's qemu-user, not qemu-user-static)."
            )
        return done.stdout


@contextlib.contextmanager
def open_emulator() -> Iterator[Emulator]:
    """Yield an emulator that is ready to run.

    Raises:
        DirnetError: a tool is missing, or something cannot be built.
    """
    program = require_tool(EMULATOR, "Emulating arm64")
    libraries = system_libraries()[0].parent
    with tempfile.TemporaryDirectory() as name:
        prefix = Path(name)
        (prefix / "lib").symlink_to(libraries)
        (prefix / "proc").mkdir()
        (prefix / "proc" / "cpuinfo").write_text(_CPU_INFO)
        yield Emulator(program, prefix, counting_plugin(), arm64_build().runner)
