"""The statistics of batch norms, measured again: before a network in training is tested or kept, and before a
teacher teaches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

from torch import Tensor, nn

from dirnet_convert.binarize.norm_statistics import measure_norms, tracked_norms
from dirnet_convert.data.augment import Augmentation
from dirnet_convert.finetune.job import TrainJob
from dirnet_convert.finetune.losses import Objective


def measure_norms_again(job: TrainJob, network: nn.Module) -> None:
    """Measure ``network``'s batch norms on the job's ``norm_images``, if any; all processes must call this.

    The training's steps normalize by their own batches and see no difference; DTE's quantiles, which are
    those of the network as it is tested, do.
    """
    options, ranks = job.options, job.ranks
    if options.norm_images > 0:
        images = job.data.plain_train_batches(options.norm_images, options.batch_size, job.seed, ranks.shard)
        _measure(job, network, images)


def measure_teacher(job: TrainJob, augment: Augmentation) -> bool:
    """Measure the teacher's batch norms on its ``teacher_norm_images`` training images as ``augment`` leaves
    them, and return whether there was anything to measure; all processes must call this.

    The images are the same ones whenever it is called, in whole batches.

    Source: Touvron et al., NeurIPS 2019, "Fixing the train-test resolution discrepancy", section 3: a crop
    that was enlarged, or an image of another size, has activations of another distribution. The statistics
    that a teacher is tested with are not those of the images that it teaches with.
    """
    options, ranks, count = job.options, job.ranks, job.distill.teacher_norm_images
    if job.teacher_forward is None or count == 0 or not Objective(job.distill, 0.0).needs_teacher:
        return False
    if not tracked_norms(job.teacher_forward):
        return False
    batches = job.data.train_batches(options.batch_size, augment, job.seed, 0, shard=ranks.shard)
    first = itertools.islice(batches, math.ceil(count / (options.batch_size * ranks.count)))
    _measure(job, job.teacher_forward, (images for images, _ in first))
    return True


def _measure(job: TrainJob, network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Let the statistics be the mean over what each process has of ``batches``."""
    ranks = job.ranks
    measure_norms(network, (images.to(ranks.device) for images in batches))
    for norm in tracked_norms(network):
        norm.running_mean.copy_(ranks.mean(norm.running_mean))
        norm.running_var.copy_(ranks.mean(norm.running_var))
