"""What is measured on: processor, versions, and what else keeps the machine busy."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

from dirnet_convert.environment import cpu_name, package_versions, usable_cores

_PROC_STAT = Path("/proc/stat")
_PACKAGES = ("dirnet", "onnxruntime", "onnx", "numpy")
# user, nice, system, irq, softirq, steal; idle and iowait are left out, guest time is part of user.
_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)


@dataclass(frozen=True)
class Machine:
    """The machine and the software that a figure belongs to."""

    cpu: str
    cores: int
    architecture: str
    system: str
    python: str
    versions: dict[str, str]


def this_machine(extra: tuple[str, ...] = ()) -> Machine:
    """Describe the machine that this process runs on, with the versions of ``extra`` packages too."""
    versions = package_versions(extra)
    return Machine(
        cpu=cpu_name(),
        cores=usable_cores(),
        architecture=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions={name: versions[name] for name in (*_PACKAGES, *extra)},
    )


class LoadMeter:
    """Measures how many processors were busy with anything but this process since the last reading."""

    def __init__(self) -> None:
        self._last = self._now()

    def read(self) -> float | None:
        """Return the other load in processors since the last call; None where the system does not tell."""
        before, self._last = self._last, self._now()
        wall = self._last[0] - before[0]
        if self._last[1] is None or before[1] is None or wall <= 0:
            return None
        others = (self._last[1] - before[1]) - (self._last[2] - before[2])
        return max(0.0, others / wall)

    @staticmethod
    def _now() -> tuple[float, float | None, float]:
        busy = None
        if _PROC_STAT.is_file():
            counts = _PROC_STAT.read_text().split("\n", 1)[0].split()[1:]
            busy = sum(int(counts[k]) for k in _BUSY_FIELDS if k < len(counts)) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy, time.process_time()
