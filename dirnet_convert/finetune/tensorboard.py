"""A training's curves in TensorBoard's format, beside metrics.jsonl."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from dirnet_convert.errors import UsageError
from dirnet_convert.finetune.observer import EpochReport, SilentObserver, StepReport

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_MISSING = (
    "TensorBoard is not installed: pip install 'dirnet-convert[tensorboard]', or leave --tensorboard away."
)


class TensorBoardObserver(SilentObserver):
    """Writes the loss of each step, and every number of each epoch, below ``folder``.

    A training that goes on hides what was logged of steps that are done again.

    Raises:
        UsageError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(_MISSING) from error
        self._folder, self._make = folder, SummaryWriter
        self._writer: SummaryWriter | None = None

    def started(self, done_steps: int, total_steps: int, total_epochs: int) -> None:
        self.close()
        self._writer = self._make(str(self._folder), purge_step=done_steps + 1)

    def stepped(self, report: StepReport) -> None:
        self._add("step/loss", report.loss, report.step)

    def finished_epoch(self, report: EpochReport) -> None:
        for name, value in dataclasses.asdict(report).items():
            if name in ("epoch", "step"):
                continue
            values = value if isinstance(value, dict) else {name: value}
            for key, number in values.items():
                if isinstance(number, int | float):
                    self._add(f"epoch/{key}", number, report.step)
        for layer in report.receiving:
            self._add(f"receiving_weights/{layer.name}", layer.weights, report.step)
            self._add(f"receiving_inputs/{layer.name}", layer.inputs, report.step)
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write what is still held back."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add(self, name: str, value: float, step: int) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)
