"""What a training is asked to do, and what comes of it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dirnet_convert.data.source import ImageSource
from dirnet_convert.finetune.ranks import Ranks, one_process
from dirnet_convert.recipe import DistillOptions, EstimatorOptions, TrainOptions, to_dict
from dirnet_convert.run import RunFolder, Stage


@dataclass(frozen=True)
class TrainJob:
    """One training of one run.

    ``student`` maps images to logits; ``student_forward`` shares its parameters and returns logits, or
    (logits, representations) as ``teacher_forward`` does. A detector's ``student_forward`` takes targets,
    too, and returns (losses by name, representations). ``estimator`` is None where nothing is binary.
    ``stage`` is what the run has reached when it is done. ``options.batch_size`` is the batch of each of
    ``ranks``. ``restarted``: it began anew, and what was trained before was dropped.
    """

    run: RunFolder
    stage: Stage
    student: nn.Module
    student_forward: nn.Module
    teacher_forward: nn.Module | None
    data: ImageSource
    options: TrainOptions
    distill: DistillOptions
    estimator: EstimatorOptions | None
    seed: int
    ranks: Ranks = field(default_factory=one_process)
    restarted: bool = False

    @property
    def section(self) -> str:
        """The recipe's section that holds the options."""
        return "pretrain" if self.stage is Stage.PRETRAINED else "finetune"

    @property
    def resuming_command(self) -> str:
        """What goes on with the training, as a person reads it.

        'dirnet pretrain NETWORK' makes a new run each time, so that the run has to be named instead.
        """
        if self.stage is Stage.PRETRAINED:
            return f"'{shlex.join(['dirnet', 'pretrain', str(self.run.path)])}'"
        return "the same command without --restart" if self.restarted else "the same command"

    def identity(self) -> dict[str, Any]:
        """Return every option that decides the result, but for the epochs, by its name in the recipe."""
        free = ("epochs", "compile", "arithmetic", "checkpoint_minutes")
        values = {f"{self.section}.{k}": v for k, v in to_dict(self.options).items() if k not in free}
        values |= {f"distill.{k}": v for k, v in to_dict(self.distill).items()}
        if self.estimator is not None:
            values |= {f"estimator.{k}": v for k, v in to_dict(self.estimator).items()}
        values |= {"seed": self.seed, "the number of training images": self.data.train_size}
        return values | {"the number of processes": self.ranks.count}


@dataclass(frozen=True)
class TrainResult:
    """The end of a training; ``already_finished`` where there was nothing left to do.

    ``kept_epoch`` is the one whose weights stay, the last or that which held-out images chose; ``scores`` are
    its own on the test images, by their names in metrics.jsonl.
    """

    epochs: int
    kept_epoch: int
    scores: dict[str, float]
    seconds: float
    already_finished: bool
