"""What a training is asked to do, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dirnet_convert.data.source import ImageSource
from dirnet_convert.errors import UsageError
from dirnet_convert.evaluate_detection import check_evaluation
from dirnet_convert.finetune.checkpoint import Checkpoint, has_diverged, read_checkpoint
from dirnet_convert.finetune.detection import check_detection
from dirnet_convert.finetune.losses import Objective
from dirnet_convert.finetune.optimizer import check_optimizer
from dirnet_convert.finetune.ranks import Ranks, one_process
from dirnet_convert.ranges import check_distill, check_estimator, check_training
from dirnet_convert.recipe import DistillOptions, EstimatorOptions, Task, TrainOptions, to_dict
from dirnet_convert.run import RunFolder, Stage


@dataclass(frozen=True)
class TrainJob:
    """One training of one run.

    ``student`` maps images to logits; ``student_forward`` shares its parameters and returns logits, or
    (logits, representations) as ``teacher_forward`` does. A detector's ``student_forward`` takes targets,
    too, and returns (losses by name, representations). ``estimator`` is None where nothing is binary.
    ``stage`` is what the run has reached when it is done. ``options.batch_size`` is the batch of each of
    ``ranks``.
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

    @property
    def section(self) -> str:
        """The recipe's section that holds the options."""
        return "pretrain" if self.stage is Stage.PRETRAINED else "finetune"

    def identity(self) -> dict[str, Any]:
        """Return every option that decides the result, but for the epochs, by its name in the recipe."""
        free = ("epochs", "compile", "binary_forward", "checkpoint_minutes")
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


def check_options(job: TrainJob) -> None:
    """Refuse what cannot be trained with.

    Raises:
        UsageError: a value out of its range, an unknown optimizer, a batch larger than the data set, or a
            distillation without a teacher.
    """
    check_training(job.options, job.section)
    check_optimizer(job.options)
    job.data.steps_per_epoch(job.options.batch_size * job.ranks.count)
    check_distill(job.distill)
    _check_teacher(job)
    if job.estimator is not None:
        check_estimator(job.estimator)
    if job.data.info.task is Task.DETECTION:
        check_detection(job)
        check_evaluation()
    elif job.options.region_samples:
        raise UsageError(f"{job.section}.region_samples is for detectors; set it to 0.")


def accept_job(job: TrainJob) -> Checkpoint | None:
    """Check the options, and return the checkpoint to go on from, if there is one.

    Raises:
        UsageError: as check_options, or the checkpoint is one of a training with other options.
        DirnetError: the checkpoint cannot be read.
    """
    check_options(job)
    saved = read_checkpoint(job.run)
    if saved is not None:
        # What ran away may go on from its last good step by other steps than those that led there.
        free = {f"{job.section}.lr", f"{job.section}.clip_grad_norm"} if has_diverged(job.run) else set()
        _check_identity(job.identity(), saved.identity, free)
    return saved


def _check_identity(wanted: dict[str, Any], begun: dict[str, Any], free: set[str]) -> None:
    # An option that the checkpoint lacks came with a later version, whose default is what was done before.
    for name in sorted((wanted.keys() & begun.keys()) - free):
        if wanted[name] != begun[name]:
            raise UsageError(
                f"This run's training began with {name} = {begun[name]}, not {wanted[name]}; go on "
                "with the same, or begin a new training from the run's present weights with --restart."
            )


def _check_teacher(job: TrainJob) -> None:
    if job.teacher_forward is None and Objective(job.distill, 0.0).needs_teacher:
        raise UsageError(
            "There is no teacher to distil from; set distill.logit_weight and distill.rbd_weight to 0."
        )
