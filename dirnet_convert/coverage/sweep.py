"""Many trials, some at a time, and the record of what came of them."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dirnet_convert.coverage.candidates import Candidate, Library
from dirnet_convert.coverage.isolated import DEFAULT_LIMITS, Limits, RunningTrial, wait_for
from dirnet_convert.coverage.trial import Outcome, Route, Stage, TrialResult
from dirnet_convert.environment import package_versions
from dirnet_convert.errors import UsageError
from dirnet_convert.files import write_atomic

_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Entry:
    """A network of the list and what came of it; ``result`` is None while it was not tried."""

    candidate: Candidate
    result: TrialResult | None = None


@dataclass(frozen=True)
class SweepRecord:
    """A whole list of networks with their results, and what they were made with."""

    library: Library
    date: str
    command: str
    versions: dict[str, str]
    entries: tuple[Entry, ...]


def new_record(library: Library, listed: Sequence[Candidate], command: str) -> SweepRecord:
    """Return the record of a sweep over the networks ``listed`` of ``library`` that has not begun."""
    entries = tuple(Entry(candidate) for candidate in listed)
    return SweepRecord(library, _today(), command, package_versions(), entries)


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def resumed(record: SweepRecord, library: Library) -> SweepRecord:
    """Return ``record`` to go on with today.

    Raises:
        UsageError: it is of another library, or was made with other versions.
    """
    if record.library is not library:
        raise UsageError(
            f"The results to go on from are of --library {record.library}; ask for the same, or leave "
            "--resume away."
        )
    now = package_versions()
    other = [name for name in now if record.versions.get(name) != now[name]]
    if other:
        was = ", ".join(f"{name} {record.versions.get(name)}" for name in other)
        raise UsageError(f"The results to go on from were made with {was}; begin anew without --resume.")
    return dataclasses.replace(record, date=_today())


def run_trials(
    listed: Sequence[Candidate], jobs: int, limits: Limits = DEFAULT_LIMITS
) -> Iterator[tuple[Candidate, TrialResult]]:
    """Try each network in a process of its own, ``jobs`` at a time; yield each result as it comes.

    A generator that is closed early ends the processes that are still running.
    """
    waiting = list(reversed(listed))
    running: list[RunningTrial] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(RunningTrial(waiting.pop(), limits))
            wait_for(running, _POLL_SECONDS)
            for trial in list(running):
                result = trial.poll()
                if result is not None:
                    running.remove(trial)
                    yield trial.candidate, result
    finally:
        for trial in running:
            trial.stop()


def run_sweep(
    record: SweepRecord, jobs: int, done: Callable[[SweepRecord, TrialResult], None]
) -> SweepRecord:
    """Try what ``record`` has not yet seen succeed; ``done`` gets the record after each network."""
    todo = [e.candidate for e in record.entries if e.result is None or e.result.outcome is Outcome.FAILED]
    for candidate, result in run_trials(todo, jobs):
        entries = tuple(
            Entry(candidate, result) if entry.candidate == candidate else entry for entry in record.entries
        )
        record = dataclasses.replace(record, entries=entries)
        done(record, result)
    return record


def save_record(record: SweepRecord, path: Path) -> None:
    """Write ``record`` as JSON, whole or not at all.

    Raises:
        DirnetError: the folder cannot be written.
    """
    write_atomic(path, json.dumps(to_json(record), indent=1) + "\n")


def to_json(record: SweepRecord) -> dict[str, Any]:
    """Return ``record`` as plain values: a list of networks, each with what came of it, or null."""
    networks = []
    for entry in record.entries:
        result = None if entry.result is None else dataclasses.asdict(entry.result)
        networks.append(dataclasses.asdict(entry.candidate) | {"result": result})
    return {
        "library": record.library,
        "date": record.date,
        "command": record.command,
        "versions": record.versions,
        "networks": networks,
    }


def load_record(path: Path) -> SweepRecord:
    """Read a record.

    Raises:
        UsageError: there is none, or the file is something else.
    """
    try:
        values = json.loads(path.read_text())
        entries = tuple(_entry(network) for network in values["networks"])
        library = Library(values["library"])
        return SweepRecord(library, values["date"], values["command"], values["versions"], entries)
    except FileNotFoundError:
        raise UsageError(f"There is no {path} to go on from; leave --resume away.") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is no record of a sweep; remove it, or name another --out.") from error


def _entry(network: dict[str, Any]) -> Entry:
    candidate = Candidate(network["model"], Library(network["library"]), network["family"])
    values = network["result"]
    return Entry(candidate, None if values is None else _result(values))


def _result(values: dict[str, Any]) -> TrialResult:
    kinds = {"outcome": Outcome, "route": Route, "stage": Stage}
    named = {key: kind(values[key]) if values[key] is not None else None for key, kind in kinds.items()}
    return TrialResult(**values | named)
