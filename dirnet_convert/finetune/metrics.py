"""metrics.jsonl: a line of JSON for each epoch, cut back where a resumed training goes on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from dirnet_convert.errors import DirnetError
from dirnet_convert.files import write_atomic
from dirnet_convert.finetune.observer import EpochReport


def read_lines(path: Path) -> list[str]:
    """Return the whole lines of the file, none where it is missing; a line cut off by a crash is left out."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return text.splitlines()[: text.count("\n")]


def keep_lines(path: Path, count: int) -> None:
    """Drop every line after the first ``count``: epochs that no checkpoint knows of."""
    if path.is_file():
        write_atomic(path, "".join(f"{line}\n" for line in read_lines(path)[:count]))


def append_line(path: Path, report: EpochReport, stage: str) -> None:
    """Add one epoch's line."""
    values: dict[str, object] = {"stage": stage}
    for name, value in dataclasses.asdict(report).items():
        values |= value if isinstance(value, dict) else {name: value}
    lines = [*read_lines(path), json.dumps(values)]
    write_atomic(path, "".join(f"{line}\n" for line in lines))


def scores_of(path: Path, line: int, names: tuple[str, ...]) -> dict[str, float]:
    """Return the scores of these names in a line (-1 is the last).

    Raises:
        DirnetError: the line is missing or damaged.
    """
    try:
        lines = read_lines(path)
        if len(lines) < abs(line):
            raise DirnetError(f"{path} is missing or too short; train anew with --restart.")
        values = json.loads(lines[line])
        return {name: float(values[name]) for name in names}
    except (ValueError, KeyError, TypeError) as error:
        raise DirnetError(f"{path} is damaged; train anew with --restart.") from error
