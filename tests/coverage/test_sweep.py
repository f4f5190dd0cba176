"""docs/coverage.json says what comes of every network; here each is tried again and must come out the same.

Each network is a test of its own, in a process of its own. Of torchvision's list the smallest network of
each family runs here, since the others repeat its layers in other numbers and would take three times as long
as all else, and of timm's what is not one of those again. The few that take longest are left out, too: they
would be a quarter of all the time. DIRNET_SWEEP=all runs everything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dirnet_convert.coverage.candidates import Library, candidates, timm_families
from dirnet_convert.coverage.report import count, markdown
from dirnet_convert.coverage.sweep import Entry, load_record, run_trials
from dirnet_convert.coverage.trial import Outcome
from dirnet_convert.environment import package_versions

DOCS = Path(__file__).resolve().parents[2] / "docs"
RECORD = load_record(DOCS / "coverage.json")
# As the record tells them; the median is 9.
_LONGEST_SECONDS = 50.0


class KnownFailure(AssertionError):
    """A network fails as the record says it does."""


def _chosen() -> Iterator[Entry]:
    if os.environ.get("DIRNET_SWEEP") == "all":
        yield from RECORD.entries
        return
    smallest: dict[str, Entry] = {}
    for entry in RECORD.entries:
        if entry.candidate.library is Library.TORCHVISION and entry.result is not None:
            best = smallest.setdefault(entry.candidate.family, entry)
            if entry.result.parameters < best.result.parameters:
                smallest[entry.candidate.family] = entry
    yield from smallest.values()
    seen = {_numbers(entry) for entry in smallest.values()}
    for entry in RECORD.entries:
        if entry.candidate.library is Library.TIMM and _numbers(entry) not in seen and not _is_long(entry):
            yield entry


def _is_long(entry: Entry) -> bool:
    return entry.result is not None and entry.result.seconds > _LONGEST_SECONDS


def _numbers(entry: Entry) -> tuple[int, ...] | None:
    """Return what tells networks apart: their parameters, layers and binary layers."""
    result = entry.result
    return None if result is None else (result.parameters, result.layers, result.binary_layers)


def _parameters() -> list[object]:
    made = []
    for entry in _chosen():
        result = entry.result
        known = result is not None and result.outcome is Outcome.FAILED
        mark = pytest.mark.xfail(raises=KnownFailure, strict=True, reason=result.reason if known else "")
        made.append(pytest.param(entry, id=entry.candidate.model, marks=[mark] if known else []))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("entry", _parameters())
def test_a_network_comes_out_as_the_record_says(entry: Entry) -> None:
    expected = entry.result
    ((_, got),) = run_trials([entry.candidate], jobs=1)
    print(f"seed {got.seed}, {got.seconds} s")
    assert expected is not None, "the record has no result"
    if got.outcome is expected.outcome is Outcome.FAILED:
        assert (got.stage, got.reason) == (expected.stage, expected.reason)
        raise KnownFailure(got.reason)
    assert got.outcome is expected.outcome, f"{got.stage}: {got.reason}"
    facts = (expected.binary_layers, expected.layers, expected.route)
    assert (got.binary_layers, got.layers, got.route) == facts


def test_the_page_is_made_of_the_record() -> None:
    assert (DOCS / "coverage.md").read_text() == markdown(RECORD)


def test_the_record_lists_every_network() -> None:
    assert all(entry.result is not None for entry in RECORD.entries)
    recorded = {entry.candidate.model for entry in RECORD.entries}
    families = {entry.candidate.family for entry in RECORD.entries if entry.candidate.library is Library.TIMM}
    now = package_versions()
    if RECORD.versions["torchvision"] == now["torchvision"]:
        assert {candidate.model for candidate in candidates(Library.TORCHVISION)} <= recorded
    if RECORD.versions["timm"] == now["timm"]:
        assert families == set(timm_families())


def test_the_aims_are_met() -> None:
    assert count(RECORD.entries, Library.TORCHVISION).share_percent == 100
    timm = count(RECORD.entries, Library.TIMM).share_percent
    assert timm is not None and timm >= 95
