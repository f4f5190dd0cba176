"""The run folder: the only place that knows its file names."""

from __future__ import annotations

import contextlib
import datetime
import enum
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

from dirnet_convert.errors import UsageError
from dirnet_convert.files import write_atomic
from dirnet_convert.recipe import Recipe, Task, from_dict, read_toml, to_dict

RUN_FORMAT = 1


class Stage(enum.StrEnum):
    """How far a run has come."""

    PRETRAINING = "pretraining"
    PRETRAINED = "pretrained"
    CONVERTED = "converted"
    FINETUNED = "finetuned"

    @property
    def is_binary(self) -> bool:
        """Whether the run holds a binarized network."""
        return self in (Stage.CONVERTED, Stage.FINETUNED)


@dataclass(frozen=True)
class RunConfig:
    """What ``run.toml`` holds: all that is needed to build the network again.

    A detector's ``classes`` are those of objects; the background is none of them.
    """

    recipe: Recipe
    classes: int
    class_names: tuple[str, ...] = ()
    image_size: int = 0
    channels: int = 3
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    binarized: tuple[str, ...] = ()
    model_source: str = ""
    stage: Stage = Stage.CONVERTED
    task: Task = Task.CLASSIFICATION
    versions: dict[str, str] = field(default_factory=dict)
    format: int = RUN_FORMAT


@dataclass(frozen=True)
class RunFolder:
    """One run on disk; every attribute is a path below ``path``."""

    path: Path

    @property
    def config_path(self) -> Path:
        return self.path / "run.toml"

    @property
    def teacher_path(self) -> Path:
        return self.path / "teacher.safetensors"

    @property
    def model_path(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def checkpoint_dir(self) -> Path:
        return self.path / "checkpoint"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def tensorboard_dir(self) -> Path:
        return self.path / "tensorboard"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    @property
    def onnx_path(self) -> Path:
        return self.path / "model.onnx"

    @property
    def teacher_onnx_path(self) -> Path:
        return self.path / "teacher.onnx"

    @property
    def openvino_path(self) -> Path:
        return self.path / "model.xml"

    @property
    def bench_path(self) -> Path:
        return self.path / "bench.json"

    @property
    def board_bench_path(self) -> Path:
        return self.path / "bench-arm64.json"

    @property
    def emulated_bench_path(self) -> Path:
        return self.path / "bench-emulated.json"

    @property
    def plan_path(self) -> Path:
        return self.path / "plan.json"

    @property
    def source_dir(self) -> Path:
        return self.path / "source"

    def read_config(self) -> RunConfig:
        """Read run.toml; raises UsageError where this is no run folder or one of a later version."""
        if not self.config_path.is_file():
            raise UsageError(
                f"{self.path} is not a run folder (it has no run.toml); make one with 'dirnet convert'."
            )
        values = read_toml(self.config_path)
        version = values.get("format", RUN_FORMAT)
        if isinstance(version, int) and version > RUN_FORMAT:
            raise UsageError(f"{self.path} was written by a newer dirnet; update dirnet to read it.")
        return from_dict(RunConfig, values, str(self.config_path))

    def write_config(self, config: RunConfig) -> None:
        """Write run.toml."""
        write_atomic(self.config_path, tomli_w.dumps(to_dict(config)))


def runs_root() -> Path:
    """Return the folder that holds runs: DIRNET_RUNS, or ``runs`` below the current folder."""
    return Path(os.environ.get("DIRNET_RUNS") or "runs")


def check_new_run(out: Path | None) -> None:
    """Refuse a folder for a new run where something lies.

    Raises:
        UsageError: ``out`` exists and is not empty, so that nothing is overwritten.
    """
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        if RunFolder(out).config_path.is_file():
            raise UsageError(
                f"{out} holds a run already; go on with it ('dirnet pretrain {out}', or 'dirnet finetune "
                f"{out}' where it is binarized), or name a new folder."
            )
        raise UsageError(f"{out} exists and is not empty; name a new folder, or remove it first.")


def new_run(name: str, out: Path | None) -> RunFolder:
    """Make the empty folder of a new run, ``out`` or runs/<name>-<date>-<time>, which no other process gets.

    Raises:
        UsageError: ``out`` exists and is not empty.
    """
    if out is not None:
        check_new_run(out)
        out.mkdir(parents=True, exist_ok=True)
        return RunFolder(out)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    base = runs_root() / f"{name}-{stamp}"
    path, count = base, 1
    while True:
        try:
            path.mkdir(parents=True)
            return RunFolder(path)
        # Another command began in the same second.
        except FileExistsError:
            count += 1
            path = base.with_name(f"{base.name}-{count}")


@contextlib.contextmanager
def filled_run(name: str, out: Path | None) -> Iterator[RunFolder]:
    """Yield the folder of ``new_run``; where the block fails, the disk is as it was before.

    Raises:
        UsageError: ``out`` exists and is not empty.
    """
    existed = out is not None and out.exists()
    run = new_run(name, out)
    try:
        yield run
    # Ctrl-C, too, must not leave half a run behind; the cause goes on to the caller.
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        if existed:
            run.path.mkdir(exist_ok=True)
        raise


def open_run(path: Path | None) -> RunFolder:
    """Open ``path``, or where it is None the newest run below runs_root(); a demo's lie one level deeper.

    Raises:
        UsageError: there is no such run.
    """
    if path is not None:
        if not path.exists():
            raise UsageError(f"No run folder {path}; make one with 'dirnet convert'.")
        run = RunFolder(path)
        run.read_config()
        return run
    root = runs_root()
    found = sorted(
        (path for pattern in ("*/run.toml", "*/*/run.toml") for path in root.glob(pattern)),
        key=lambda path: path.stat().st_mtime_ns,
    )
    if not found:
        raise UsageError(
            f"No run below {root.resolve()}; make one with 'dirnet convert', or name its folder with --run."
        )
    return RunFolder(found[-1].parent)


def run_of_model(model: str) -> RunFolder | None:
    """Return the run folder that a MODEL names, or None where it is a network's name.

    Raises:
        UsageError: it is the path of a folder that is no run, or not there.
    """
    folder = Path(model)
    if (folder / "run.toml").is_file():
        return RunFolder(folder)
    # A folder here may have the name of a network; with a slash in it, a folder is meant.
    if len(folder.parts) == 1 or ":" in model or folder.suffix == ".py":
        return None
    if folder.is_dir():
        raise UsageError(f"{model} is not a run folder (it has no run.toml); name a run or a network.")
    raise UsageError(f"There is no run folder {model}; check the path.")
