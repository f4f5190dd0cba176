"""Whether a training can begin, or go on from where its run stands."""

from __future__ import annotations

from typing import Any

from torchvision.models.detection import FasterRCNN

from dirnet_convert.errors import UsageError
from dirnet_convert.evaluate_detection import check_evaluation
from dirnet_convert.finetune.checkpoint import Checkpoint, has_diverged, read_checkpoint
from dirnet_convert.finetune.job import TrainJob
from dirnet_convert.finetune.losses import Objective
from dirnet_convert.finetune.optimizer import check_optimizer
from dirnet_convert.ranges import check_distill, check_estimator, check_training
from dirnet_convert.recipe import Precision, Task, TrainOptions


def check_options(job: TrainJob) -> None:
    """Refuse what cannot be trained with.

    Raises:
        UsageError: a value out of its range, an unknown optimizer, a batch larger than the data set, or a
            distillation without a teacher.
    """
    check_training(job.options, job.section)
    check_optimizer(job.options)
    job.data.steps_per_epoch(job.options.batch_size * job.ranks.count)
    if 0 < job.options.norm_images < 2 * job.ranks.count:
        raise UsageError(
            f"{job.section}.norm_images is {job.options.norm_images}; {job.ranks.count} processes need at "
            f"least {2 * job.ranks.count}, or 0."
        )
    check_distill(job.distill)
    _check_teacher(job)
    if job.estimator is not None:
        check_estimator(job.estimator)
    elif job.options.inputs_first:
        raise UsageError(
            f"{job.section}.inputs_first is for binary networks; set it to 0 where nothing is binary."
        )
    if job.data.info.task is Task.DETECTION:
        _check_detection(job)
        check_evaluation()
    elif job.options.region_samples:
        raise UsageError(f"{job.section}.region_samples is for detectors; set it to 0.")


def accept_job(job: TrainJob) -> Checkpoint | None:
    """Check the options, and return the checkpoint to go on from, if there is one.

    One of step 0 binds no options: nothing was trained with those that it names.

    Raises:
        UsageError: as check_options, or the checkpoint is one of a training with other options.
        DirnetError: the checkpoint cannot be read.
    """
    check_options(job)
    saved = read_checkpoint(job.run)
    if saved is not None and saved.step > 0:
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


def _check_detection(job: TrainJob) -> None:
    for name, given in (
        ("distill.logit_weight", job.distill.logit_weight != 0.0),
        (f"{job.section}.label_smoothing", job.options.label_smoothing != 0.0),
        (f"{job.section}.image_size", job.options.image_size != 0),
        (f"{job.section}.small_image_size", job.options.small_image_size != 0),
    ):
        if given:
            raise UsageError(f"{name} is for classifiers; a detector is trained with it set to 0.")
    if job.distill.representations:
        raise UsageError("distill.representations is for classifiers; leave it empty for a detector.")
    if job.options.crop_area_min != TrainOptions.crop_area_min:
        raise UsageError(
            f"{job.section}.crop_area_min is for classifiers; leave it at {TrainOptions.crop_area_min} for a "
            "detector."
        )
    if job.options.precision is Precision.BFLOAT16:
        raise UsageError(f"{job.section}.precision must be float32 for a detector.")
    if job.options.region_samples and not isinstance(job.student, FasterRCNN):
        raise UsageError(f"{job.section}.region_samples is for Faster R-CNN; this detector has no regions.")
