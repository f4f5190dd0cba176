"""Processors of different speed in one machine: which of them a benchmark runs on."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")


class CoreChoice(enum.StrEnum):
    """The cores of a benchmark, where a machine has fast and slow ones."""

    BIG = "big"
    LITTLE = "little"
    ALL = "all"


def choose_cores(capacities: Mapping[int, int], choice: CoreChoice) -> tuple[int, ...]:
    """Return the numbers of the cores that ``choice`` means, given each core's capacity.

    The little ones are those of the lowest capacity; where all are alike, all are meant.
    """
    lowest = min(capacities.values(), default=0)
    big = tuple(core for core in sorted(capacities) if capacities[core] > lowest)
    if choice is CoreChoice.ALL or not big:
        return tuple(sorted(capacities))
    return big if choice is CoreChoice.BIG else tuple(sorted(set(capacities) - set(big)))


def local_capacities() -> dict[int, int]:
    """Return the capacity of every core that this process may use; alike where the system tells none."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = affinity(0) if affinity else range(os.cpu_count() or 1)
    return {core: _capacity(_CPUS / f"cpu{core}") for core in cores}


def pin_to(cores: tuple[int, ...]) -> None:
    """Keep this process on ``cores``, where the system can."""
    set_affinity = getattr(os, "sched_setaffinity", None)
    if set_affinity is not None and cores:
        set_affinity(0, cores)


def _capacity(folder: Path) -> int:
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        file = folder / name
        if file.is_file():
            return int(file.read_text())
    return 0
