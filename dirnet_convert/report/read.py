"""What a run folder tells of itself, read for its page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dirnet_convert.errors import DirnetError
from dirnet_convert.run import RunConfig, RunFolder


@dataclass(frozen=True)
class RunFacts:
    """A run's files, as far as they are there; ``epochs`` are the lines of its last training.

    ``earlier_epochs`` is the number of lines of trainings before that.
    """

    run: RunFolder
    config: RunConfig
    plan: dict[str, Any]
    epochs: tuple[dict[str, Any], ...]
    earlier_epochs: int
    file_bytes: dict[str, int]
    bench: dict[str, Any]


def read_run(run: RunFolder) -> RunFacts:
    """Read what ``run`` holds.

    Raises:
        UsageError: this is no run folder.
        DirnetError: one of its files is damaged.
    """
    config = run.read_config()
    lines = _json_lines(run.metrics_path)
    begun = max((k for k, line in enumerate(lines) if line.get("epoch") == 1), default=0)
    # OpenVINO's weights lie beside its graph.
    openvino = (run.openvino_path, run.openvino_path.with_suffix(".bin"))
    files = (run.model_path, run.teacher_path, run.onnx_path, run.teacher_onnx_path, *openvino)
    return RunFacts(
        run=run,
        config=config,
        plan=_json_file(run.plan_path),
        epochs=tuple(lines[begun:]),
        earlier_epochs=begun,
        file_bytes={path.name: path.stat().st_size for path in files if path.is_file()},
        bench=_json_file(run.bench_path),
    )


def _json_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    # A line that a crash cut off has no end, and is none yet.
    return [_parsed(line, path) for line in text.splitlines()[: text.count("\n")]]


def _json_file(path: Path) -> dict[str, Any]:
    return _parsed(path.read_text(encoding="utf-8", errors="replace"), path) if path.is_file() else {}


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DirnetError(f"{path} is damaged ({error}); remove it to make a report without it.") from None
    if not isinstance(values, dict):
        raise DirnetError(f"{path} is not what dirnet wrote; remove it to make a report without it.")
    return values
