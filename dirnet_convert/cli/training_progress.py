"""How a training looks on the terminal: a bar with the rate and the time left, a line for each epoch.

Elsewhere, as in a log file, a line a minute stands for the bar.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dirnet_convert.finetune.job import TrainResult
from dirnet_convert.finetune.observer import EpochReport, Observers, SilentObserver, StepReport, TrainObserver
from dirnet_convert.finetune.tensorboard import TensorBoardObserver
from dirnet_convert.run import RunFolder

# The share of the last loss in the one that is shown, so that it can be read.
SMOOTHING = 0.05
# Between two lines where there is no terminal that a bar could move on, but a file that somebody looks into.
LOG_SECONDS = 60.0
# The share of an epoch from which on waiting for images is worth a word.
WORTH_SAYING = 0.05


# What the scores of metrics.jsonl are called on the terminal.
_SCORES = {
    "top1_percent": "top-1",
    "map50_percent": "mAP 50",
    "map_percent": "mAP 50:95",
}


def epochs_words(epochs: int) -> str:
    """Return a training's length for a sentence, such as "1 epoch"."""
    return "1 epoch" if epochs == 1 else f"{epochs} epochs"


def score_words(scores: dict[str, float]) -> str:
    """Return scores as a person reads them, such as "top-1 91.20 %"."""
    return ", ".join(f"{_SCORES[name.partition('_')[2]]} {value:.2f} %" for name, value in scores.items())


def kept_words(result: TrainResult) -> str:
    """Return which epoch's weights a training left."""
    if result.kept_epoch == result.epochs:
        return "after the last epoch"
    return f"with the weights of epoch {result.kept_epoch}, the best on the images held out"


def result_summary(run: RunFolder, result: TrainResult) -> dict[str, object]:
    """Return what --json prints of a training."""
    return {
        "run": str(run.path),
        "epochs": result.epochs,
        "kept_epoch": result.kept_epoch,
        **result.scores,
        "seconds": result.seconds,
        "already_finished": result.already_finished,
    }


class TerminalObserver(SilentObserver):
    """Shows the progress of a training."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._epochs = 0
        self._loss: float | None = None
        self._tested = 0
        self._logged = time.monotonic()

    def started(self, done_steps: int, total_steps: int, total_epochs: int) -> None:
        self._epochs = total_epochs
        if done_steps:
            self.note(f"Going on after step {done_steps} of {total_steps}.")
        self._task = self._progress.add_task("training", total=total_steps, completed=done_steps, detail="")

    def stepped(self, report: StepReport) -> None:
        if self._task is None:
            return
        self._tested = 0
        before = report.loss if self._loss is None else self._loss
        self._loss = before + SMOOTHING * (report.loss - before)
        speed = self._progress.tasks[self._task].speed
        rate = f"{speed * report.images:.0f} images/s" if speed else ""
        self._progress.update(
            self._task,
            completed=report.step,
            description=f"epoch {report.epoch}/{self._epochs}",
            detail=f"loss {self._loss:.3f}  {rate}",
        )
        now = time.monotonic()
        if not self._progress.console.is_terminal and now - self._logged >= LOG_SECONDS:
            self._logged = now
            self._log(self._progress.tasks[self._task])

    def _log(self, task: Task) -> None:
        seconds = task.time_remaining
        left = "" if seconds is None else f"  {datetime.timedelta(seconds=round(seconds))} left"
        detail = task.fields["detail"].strip()
        self.note(f"{task.description}  step {task.completed:.0f}/{task.total:.0f}  {detail}{left}")

    def evaluated(self, images: int) -> None:
        self._tested += images
        if self._task is not None:
            self._progress.update(self._task, detail=f"{self._tested} test images")

    def finished_epoch(self, report: EpochReport) -> None:
        t = "" if report.t is None else f"  t {report.t:.3g}"
        waited = ""
        if report.data_wait_s > WORTH_SAYING * report.seconds:
            waited = f", {report.data_wait_s:.0f} s of it waiting for images"
        held_out = f"held out {score_words(report.held_out)}  " if report.held_out else ""
        self._progress.console.print(
            f"epoch {report.epoch}/{self._epochs}  loss {report.train_loss:.4f}  "
            f"{held_out}test {score_words(report.scores)}  lr {report.lr:.3g}{t}  "
            f"{report.images_per_s:.0f} images/s  {report.seconds:.0f} s{waited}",
            highlight=False,
            soft_wrap=True,
        )

    def note(self, sentence: str) -> None:
        self._progress.console.print(sentence, highlight=False, soft_wrap=True, markup=False)


@contextlib.contextmanager
def training_observer(console: Console, quiet: bool, curves: Path | None = None) -> Iterator[TrainObserver]:
    """Yield what watches a training: a progress bar on ``console``, or nothing where ``quiet``.

    TensorBoard's files are written below ``curves``, if given.

    Raises:
        UsageError: they are wanted, and tensorboard is not installed.
    """
    with contextlib.ExitStack() as stack:
        observers: list[TrainObserver] = []
        if curves is not None:
            observers.append(stack.enter_context(contextlib.closing(TensorBoardObserver(curves))))
        if not quiet:
            progress = stack.enter_context(_progress(console))
            observers.append(TerminalObserver(progress))
        yield Observers(*observers)


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True)
