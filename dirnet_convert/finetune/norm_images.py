"""The statistics of batch norms, measured again before a network in training is tested or kept."""

from __future__ import annotations

from torch import nn

from dirnet_convert.binarize.norm_statistics import measure_norms, tracked_norms
from dirnet_convert.finetune.job import TrainJob


def measure_norms_again(job: TrainJob, network: nn.Module) -> None:
    """Measure ``network``'s batch norms on the job's ``norm_images``, if any; all processes must call this.

    The training's steps normalize by their own batches and see no difference; DTE's quantiles, which are
    those of the network as it is tested, do.
    """
    options, ranks = job.options, job.ranks
    if options.norm_images == 0:
        return
    batches = job.data.plain_train_batches(options.norm_images, options.batch_size, job.seed, ranks.shard)
    measure_norms(network, (batch.to(ranks.device) for batch in batches))
    for norm in tracked_norms(network):
        norm.running_mean.copy_(ranks.mean(norm.running_mean))
        norm.running_var.copy_(ranks.mean(norm.running_var))
