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
    values = {"stage": stage, **dataclasses.asdict(report)}
    lines = [*read_lines(path), json.dumps(values)]
    write_atomic(path, "".join(f"{line}\n" for line in lines))


def last_top1_percent(path: Path) -> float:
    """Return the test accuracy in the last line; raises DirnetError where there is none."""
    lines = read_lines(path)
    if not lines:
        raise DirnetError(f"{path} is empty or missing; train anew with --restart.")
    return float(json.loads(lines[-1])["test_top1_percent"])
