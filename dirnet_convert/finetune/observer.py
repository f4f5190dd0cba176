"""What a training tells whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dirnet_convert.binarize.layers import LayerShares


@dataclass(frozen=True)
class StepReport:
    """One step done: counted over the whole training, from 1."""

    step: int
    total_steps: int
    epoch: int
    loss: float
    images: int


@dataclass(frozen=True)
class EpochReport:
    """One epoch done: a line of metrics.jsonl; losses are means over the epoch, parts as yet unweighed.

    ``losses`` has each part of the loss by its name, ``scores`` what was measured on the test images, the one
    that counts first, ``held_out`` the same on training images held out, if any. Of ``seconds`` the training
    waited ``data_wait_s`` for images. ``receiving`` has, for each binary layer, the shares of its weights and
    inputs that still receive gradient.
    """

    epoch: int
    step: int
    train_loss: float
    losses: dict[str, float]
    scores: dict[str, float]
    held_out: dict[str, float]
    lr: float
    t: float | None
    images_per_s: float
    data_wait_s: float
    seconds: float
    receiving: tuple[LayerShares, ...] = ()


class TrainObserver(Protocol):
    """Hears of a training's progress; called between steps."""

    def started(self, done_steps: int, total_steps: int, total_epochs: int) -> None:
        """The training begins, or goes on after ``done_steps``."""

    def stepped(self, report: StepReport) -> None:
        """A step is done."""

    def evaluated(self, images: int) -> None:
        """That many more test images are answered."""

    def finished_epoch(self, report: EpochReport) -> None:
        """An epoch is done and its files are written."""

    def note(self, sentence: str) -> None:
        """Something that a person should know."""


class SilentObserver:
    """Hears everything and says nothing."""

    def started(self, done_steps: int, total_steps: int, total_epochs: int) -> None: ...

    def stepped(self, report: StepReport) -> None: ...

    def evaluated(self, images: int) -> None: ...

    def finished_epoch(self, report: EpochReport) -> None: ...

    def note(self, sentence: str) -> None: ...


class Observers(SilentObserver):
    """Tells several observers, in their order."""

    def __init__(self, *observers: TrainObserver) -> None:
        self._observers = observers

    def started(self, done_steps: int, total_steps: int, total_epochs: int) -> None:
        for observer in self._observers:
            observer.started(done_steps, total_steps, total_epochs)

    def stepped(self, report: StepReport) -> None:
        for observer in self._observers:
            observer.stepped(report)

    def evaluated(self, images: int) -> None:
        for observer in self._observers:
            observer.evaluated(images)

    def finished_epoch(self, report: EpochReport) -> None:
        for observer in self._observers:
            observer.finished_epoch(report)

    def note(self, sentence: str) -> None:
        for observer in self._observers:
            observer.note(sentence)
