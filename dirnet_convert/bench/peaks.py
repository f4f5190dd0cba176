"""What one core could do if nothing but arithmetic were left: the bound of a kernel's rate.

The library repeats the operations of an inner loop on registers alone; rates are of the fastest of many short
blocks, since what else runs on the machine makes blocks slower and never faster.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass

from dirnet_convert.runtime.isa import Isa, chosen_isa, isa_numbers
from dirnet_convert.runtime.library import c_interface

# Some tens of microseconds a call: far more than the call itself costs, far less than a time slice.
_STEPS = 8000
_BLOCKS = 200


class PeakKind(enum.IntEnum):
    """Whose arithmetic, by the numbers of the library's interface."""

    BINARY = 0
    INT8 = 1
    FLOAT32 = 2


@dataclass(frozen=True)
class Peaks:
    """Multiply-adds of one core in thousands of millions each second, with the instruction set ``isa``."""

    isa: str
    binary: float
    int8: float
    float32: float


def peak_loop(isa: Isa, kind: PeakKind) -> Callable[[], int] | None:
    """Return a call that runs the loop for a while and returns the multiply-adds done; None for no loop."""
    run, number = c_interface().dirnet_run_peak, isa_numbers()[isa]
    if run(number, kind, 1) == 0:
        return None
    return lambda: run(number, kind, _STEPS)


def measure_peaks() -> Peaks | None:
    """Measure the three rates of the instruction set that the kernels run with; None where there are none."""
    isa = chosen_isa()
    loops = [peak_loop(isa, kind) for kind in PeakKind]
    if any(loop is None for loop in loops):
        return None
    return Peaks(str(isa), *(_rate(loop) for loop in loops if loop is not None))


def _rate(loop: Callable[[], int]) -> float:
    best = 0.0
    for _ in range(_BLOCKS):
        start = time.perf_counter_ns()
        macs = loop()
        best = max(best, macs / max(1, time.perf_counter_ns() - start))
    return best
