"""Checkpoints: all that a training needs to go on as if it had never stopped."""

from __future__ import annotations

import dataclasses
import pickle
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dirnet_convert.errors import DirnetError
from dirnet_convert.files import DAMAGE, replacing, write_atomic
from dirnet_convert.run import RunFolder

CHECKPOINT_FORMAT = 1


@dataclass
class EpochSums:
    """What the epoch that is under way has added up so far."""

    images: int = 0
    seconds: float = 0.0
    data_wait_s: float = 0.0
    loss: float = 0.0
    parts: list[float] = field(default_factory=list)

    def add(self, images: int, loss: float, parts: list[float]) -> None:
        """Add one batch: its mean loss and parts count for each of its images."""
        self.images += images
        self.loss += loss * images
        totals = self.parts or [0.0] * len(parts)
        self.parts = [total + part * images for total, part in zip(totals, parts, strict=True)]


@dataclass(frozen=True)
class Best:
    """The epoch (from 1) whose weights are kept, and its score on the held-out images."""

    epoch: int
    score: float


@dataclass(frozen=True)
class Checkpoint:
    """A position in a training, and every state at it.

    ``identity`` holds the options that a resumed training must share; ``lines`` is the length of
    metrics.jsonl. ``student`` has the estimators' states too, in its buffers. ``best`` is there where
    held-out images choose the weights; ``other_random`` has the states of the processes behind the first.
    """

    identity: dict[str, Any]
    step: int
    lines: int
    sums: EpochSums
    student: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Tensor] | None
    cpu_random: Tensor
    cuda_random: list[Tensor]
    best: Best | None = None
    other_random: list[dict[str, Any]] = field(default_factory=list)


def checkpoint_path(run: RunFolder) -> Path:
    """Return the file of the run's latest checkpoint."""
    return run.checkpoint_dir / "latest.pt"


def _divergence_path(run: RunFolder) -> Path:
    return run.checkpoint_dir / "diverged"


def mark_diverged(run: RunFolder, sentence: str) -> None:
    """Remember that the training ran away after its last checkpoint, so that it may go on at another rate."""
    write_atomic(_divergence_path(run), sentence + "\n")


def has_diverged(run: RunFolder) -> bool:
    """Whether the training ran away after its last checkpoint."""
    return _divergence_path(run).is_file()


def write_checkpoint(run: RunFolder, checkpoint: Checkpoint) -> None:
    """Write the checkpoint in place of the one before, whole or not at all.

    Raises:
        DirnetError: it cannot be written; the one before is untouched.
    """
    values = {f.name: getattr(checkpoint, f.name) for f in dataclasses.fields(checkpoint)}
    values["sums"] = dataclasses.asdict(checkpoint.sums)
    values["best"] = None if checkpoint.best is None else dataclasses.asdict(checkpoint.best)
    values["format"] = CHECKPOINT_FORMAT
    path = checkpoint_path(run)
    with replacing(path) as part:
        try:
            torch.save(values, part)
        except RuntimeError as error:
            # What torch's writer raises where the disk is full, without the number that OSError would have.
            raise DirnetError(f"Cannot write {path}; is there enough space on the disk?") from error
    _divergence_path(run).unlink(missing_ok=True)


def read_checkpoint(run: RunFolder) -> Checkpoint | None:
    """Read the run's checkpoint, or return None where it has none; no code in the file is run.

    Raises:
        DirnetError: the file is damaged, or of another version.
    """
    path = checkpoint_path(run)
    if not path.is_file():
        return None
    advice = "train anew from the run's present weights with --restart"
    try:
        values = _loaded(path)
        if not isinstance(values, dict) or values.pop("format", None) != CHECKPOINT_FORMAT:
            raise DirnetError(f"The checkpoint {path} was written by another version of dirnet; {advice}.")
        values["sums"] = EpochSums(**values["sums"])
        best = values.get("best")
        values["best"] = None if best is None else Best(**best)
        return Checkpoint(**values)
    except (*DAMAGE, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise DirnetError(f"The checkpoint {path} is damaged; {advice}.") from error


def _loaded(path: Path) -> Any:
    # Damaged bytes may name any pickle protocol, which torch warns of before it fails.
    with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except OSError as error:
            # The file is open: what cannot be read is a place outside of it that damaged bytes name.
            raise ValueError(str(error)) from error


def drop_checkpoint(run: RunFolder) -> None:
    """Forget the run's checkpoint, so that the next training begins anew."""
    checkpoint_path(run).unlink(missing_ok=True)
    _divergence_path(run).unlink(missing_ok=True)


def remove_leftovers(run: RunFolder) -> None:
    """Remove what a process that was killed left half-written beside the files that a training writes."""
    for path in (checkpoint_path(run), run.metrics_path, run.model_path):
        for part in path.parent.glob(f".{path.name}.*.part"):
            part.unlink(missing_ok=True)
