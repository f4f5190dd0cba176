"""dirnet inspect --all: the whole way for every network of the libraries, each in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dirnet_convert.cli.options import console, error_console, print_json
from dirnet_convert.errors import UsageError, nearest_name

if TYPE_CHECKING:
    from dirnet_convert.coverage.candidates import Library
    from dirnet_convert.coverage.sweep import SweepRecord
    from dirnet_convert.coverage.trial import TrialResult

_RECORD, _PAGE = ".json", ".md"


def sweep_command(library: str, out: Path | None, jobs: int, *, resume: bool, json: bool) -> None:
    """Try every network of ``library``, write the results to ``out`` as they come, and print them.

    Raises:
        UsageError: no such library, or an ``out`` that cannot serve.
    """
    from dirnet_convert.coverage.report import markdown, summary
    from dirnet_convert.coverage.sweep import run_sweep, save_record, to_json
    from dirnet_convert.files import write_atomic

    _check_out(out, resume=resume)
    record = _record(_library(library), out, _command(library, out, jobs), resume=resume)

    def save(now: SweepRecord) -> None:
        if out is not None:
            save_record(now, out.with_suffix(_RECORD))
            if out.suffix == _PAGE:
                write_atomic(out, markdown(now))

    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=error_console,
        transient=True,
    ) as progress:
        tried = sum(entry.result is not None for entry in record.entries)
        task = progress.add_task("networks", total=len(record.entries), completed=tried)

        def done(now: SweepRecord, result: TrialResult) -> None:
            save(now)
            progress.update(task, completed=sum(entry.result is not None for entry in now.entries))
            progress.console.print(_line(result), highlight=False, soft_wrap=True, markup=False)

        try:
            record = run_sweep(record, jobs, done)
        except KeyboardInterrupt:
            if out is not None:
                progress.console.print(f"The results so far are in {out}; --resume goes on.", markup=False)
            raise
    save(record)
    if json:
        print_json(to_json(record))
        return
    console.print(summary(record), highlight=False, soft_wrap=True)


def _library(name: str) -> Library:
    from dirnet_convert.coverage.candidates import Library

    names = [member.value for member in Library]
    if name not in names:
        raise UsageError(f"No library '{name}'{nearest_name(name, names)}; it is one of {', '.join(names)}.")
    return Library(name)


def _check_out(out: Path | None, *, resume: bool) -> None:
    if out is not None and out.suffix not in (_RECORD, _PAGE):
        raise UsageError(f"--out {out} ends neither in .md nor in .json; name a file that does.")
    if resume and out is None:
        raise UsageError("--resume goes on from the results of an earlier sweep; name them with --out.")


def _record(library: Library, out: Path | None, command: str, *, resume: bool) -> SweepRecord:
    from dirnet_convert.coverage.candidates import candidates
    from dirnet_convert.coverage.sweep import load_record, new_record, resumed

    if resume and out is not None:
        return resumed(load_record(out.with_suffix(_RECORD)), library)
    with error_console.status("Looking for the smallest network of each family"):
        return new_record(library, candidates(library), command)


def _command(library: str, out: Path | None, jobs: int) -> str:
    words = ["dirnet inspect --all", f"--library {library}", f"--jobs {jobs}"]
    if out is not None:
        words.append(f"--out {out}")
    return " ".join(words)


def _line(result: TrialResult) -> str:
    head = f"{result.model}: {result.outcome}"
    if result.reason:
        return f"{head} at {result.stage}: {result.reason} ({result.seconds:.0f} s, seed {result.seed})"
    share = "" if result.mac_share is None else f", {100 * result.mac_share:.1f} % of the multiply-adds"
    layers = f", {result.binary_layers} of {result.layers} layers{share}" if result.binary_layers else ""
    return f"{head}{layers} ({result.seconds:.0f} s, seed {result.seed})"
