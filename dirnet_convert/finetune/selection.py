"""Which epoch's weights stay: the last one's, or those that held-out training images choose."""

from __future__ import annotations

import dataclasses

from dirnet_convert.data.source import ImageSource
from dirnet_convert.finetune.checkpoint import Best
from dirnet_convert.finetune.job import TrainJob
from dirnet_convert.ranges import check_training


def part_training_images(job: TrainJob) -> tuple[TrainJob, ImageSource | None]:
    """Return the job without the images that it holds out, and those as the test images of a source.

    Raises:
        UsageError: an option out of its range, or a share that leaves nothing on one side.
    """
    check_training(job.options, job.section)
    if job.options.holdout == 0.0:
        return job, None
    rest, held_out = job.data.hold_out(job.options.holdout, job.seed)
    return dataclasses.replace(job, data=rest), held_out


def better(best: Best | None, epoch: int, scores: dict[str, float]) -> Best | None:
    """Return the best of the epochs so far, given ``scores`` on the held-out images, the first one counting.

    Of equal ones the earlier stays; without scores there is none, and each epoch's weights replace those of
    the one before.
    """
    if not scores:
        return None
    score = next(iter(scores.values()))
    return Best(epoch, score) if best is None or score > best.score else best
