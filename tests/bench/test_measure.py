"""Turns, medians, and what is said of a machine that is not quiet."""

from __future__ import annotations

import dataclasses

import pytest

from dirnet_convert.bench import measure as measuring
from dirnet_convert.bench.machine import LoadMeter, this_machine
from dirnet_convert.bench.measure import Contestant, MeasureOptions, measure
from dirnet_convert.bench.report import quietness
from dirnet_convert.errors import UsageError

SHORT = MeasureOptions(rounds=4, block_ms=0.01, warmup_calls=1)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every round count, whatever else runs while the tests do."""
    monkeypatch.setattr(LoadMeter, "read", lambda _self: 0.0)


@pytest.mark.usefixtures("quiet")
def test_turns_change_their_order_every_other_round(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def block(contestant: Contestant, _calls: int) -> float:
        called.append(contestant.name)
        return {"a": 2.0, "b": 1.0}[contestant.name]

    monkeypatch.setattr(measuring, "_block_ms", block)
    result = measure([Contestant(name, lambda: None) for name in "ab"], SHORT)
    assert called[2:] == ["a", "b", "b", "a"] * 2
    assert result.timing("a").block_ms == (2.0,) * 4
    assert result.ratio("a", "b") == 2.0
    with pytest.raises(KeyError):
        result.timing("c")


@pytest.mark.usefixtures("quiet")
def test_medians_quartiles_and_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 4.0, 1.0, 3.0, 2.0])
    monkeypatch.setattr(measuring, "_block_ms", lambda _contestant, _calls: next(times))
    timing = measure([Contestant("a", lambda: None)], SHORT).timing("a")
    assert (timing.min_ms, timing.low_ms, timing.median_ms, timing.high_ms) == (1.0, 1.75, 2.5, 3.25)


@pytest.mark.parametrize(
    ("loads", "kept"), [([0.0, 0.9, 0.0, 0.1], 3), ([0.9, 0.9, 0.0, 0.0], 4), ([None] * 4, 4)]
)
def test_disturbed_rounds_are_left_out_while_enough_remain(
    monkeypatch: pytest.MonkeyPatch, loads: list[float | None], kept: int
) -> None:
    readings = iter(loads)
    monkeypatch.setattr(LoadMeter, "read", lambda _self: next(readings))
    result = measure([Contestant("a", lambda: None)], SHORT)
    assert len(result.timing("a").block_ms) == kept
    assert result.rounds == 4
    assert bool(quietness(result)) == (kept != 3)


def test_every_round_is_reported() -> None:
    rounds: list[int] = []
    result = measure([Contestant("a", lambda: None)], SHORT, lambda: rounds.append(1))
    assert len(rounds) == SHORT.rounds
    assert result.timing("a").min_ms <= result.timing("a").median_ms


@pytest.mark.parametrize("change", [{"rounds": 0}, {"block_ms": 0.0}, {"warmup_calls": 0}])
def test_impossible_options(change: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        dataclasses.replace(SHORT, **change)


def test_the_machine_is_named() -> None:
    machine = this_machine()
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.versions["onnxruntime"][0].isdigit()
    load = LoadMeter().read()
    assert load is None or load >= 0
