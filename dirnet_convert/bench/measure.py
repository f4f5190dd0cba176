"""Latency of several contestants, taken in turns so that a slow minute is slow for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dirnet_convert.bench.machine import LoadMeter
from dirnet_convert.errors import UsageError

# More of other processes than this share of one processor, and a round is not called quiet.
MAX_OTHER_LOAD = 0.12
MIN_QUIET_ROUNDS = 3
_PAUSE_S = 0.005


@dataclass(frozen=True)
class Contestant:
    """Something to be timed: one call is one inference."""

    name: str
    call: Callable[[], object]


@dataclass(frozen=True)
class MeasureOptions:
    """In each of ``rounds`` rounds every contestant runs for about ``block_ms``, at least three calls."""

    rounds: int = 15
    block_ms: float = 100.0
    warmup_calls: int = 3

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.block_ms <= 0 or self.warmup_calls < 1:
            raise UsageError(
                "A measurement needs at least one round, a block above 0 ms and one warm-up call."
            )


@dataclass(frozen=True)
class Timing:
    """One contestant's latency: median, quartiles and minimum over the blocks' own medians."""

    name: str
    median_ms: float
    low_ms: float
    high_ms: float
    min_ms: float
    block_ms: tuple[float, ...]


@dataclass(frozen=True)
class Measurement:
    """All timings over the same rounds; ``other_load`` (processors) is None where the system tells none."""

    timings: tuple[Timing, ...]
    rounds: int
    quiet_rounds: int
    only_quiet: bool
    other_load: float | None

    def timing(self, name: str) -> Timing:
        """Return the timing of the contestant ``name``; raises KeyError where there is none."""
        for timing in self.timings:
            if timing.name == name:
                return timing
        raise KeyError(name)

    def ratio(self, slower: str, faster: str) -> float:
        """Return the median over rounds of ``slower``'s time by ``faster``'s time in the same round."""
        pairs = zip(self.timing(slower).block_ms, self.timing(faster).block_ms, strict=True)
        return statistics.median(a / b for a, b in pairs)


def measure(
    contestants: Sequence[Contestant],
    options: MeasureOptions,
    on_round: Callable[[], None] | None = None,
) -> Measurement:
    """Time all contestants in round-robin blocks, their order reversed every other round."""
    calls = [_calls_per_block(contestant, options) for contestant in contestants]
    rounds: list[list[float]] = []
    loads: list[float | None] = []
    for number in range(options.rounds):
        order = range(len(contestants)) if number % 2 == 0 else range(len(contestants) - 1, -1, -1)
        blocks = [0.0] * len(contestants)
        meter = LoadMeter()
        for k in order:
            blocks[k] = _block_ms(contestants[k], calls[k])
        loads.append(meter.read())
        rounds.append(blocks)
        if on_round is not None:
            on_round()
    return summarize([contestant.name for contestant in contestants], rounds, loads)


def summarize(
    names: Sequence[str], rounds: Sequence[Sequence[float]], loads: Sequence[float | None]
) -> Measurement:
    """Return the figures of ``rounds``: in each a time in ms for every one of ``names``, and the other load.

    Rounds that other processes disturbed are left out where at least three quiet ones remain.
    """
    quiet = [
        blocks for blocks, load in zip(rounds, loads, strict=True) if load is None or load <= MAX_OTHER_LOAD
    ]
    only_quiet = len(quiet) >= min(MIN_QUIET_ROUNDS, len(rounds))
    known = [load for load in loads if load is not None]
    return Measurement(
        timings=tuple(
            _timing(name, [blocks[k] for blocks in (quiet if only_quiet else rounds)])
            for k, name in enumerate(names)
        ),
        rounds=len(rounds),
        quiet_rounds=len(quiet),
        only_quiet=only_quiet,
        other_load=statistics.median(known) if known else None,
    )


def _calls_per_block(contestant: Contestant, options: MeasureOptions) -> int:
    for _ in range(options.warmup_calls):
        contestant.call()
    once_ms = _block_ms(contestant, 3)
    return max(3, min(10_000, round(options.block_ms / max(once_ms, 1e-4))))


def _block_ms(contestant: Contestant, calls: int) -> float:
    # After its last call another session's threads spin for a moment, and its data fill the caches:
    # hence a pause, and a first call that is not counted.
    time.sleep(_PAUSE_S)
    contestant.call()
    times = []
    for _ in range(calls):
        began = time.perf_counter_ns()
        contestant.call()
        times.append(time.perf_counter_ns() - began)
    return statistics.median(times) / 1e6


def _timing(name: str, blocks: list[float]) -> Timing:
    if len(blocks) > 1:
        low, median, high = statistics.quantiles(blocks, n=4, method="inclusive")
    else:
        low = median = high = blocks[0]
    return Timing(name, median, low, high, min(blocks), tuple(blocks))
