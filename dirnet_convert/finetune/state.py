"""The moving parts of a training, captured in a checkpoint and put back from one."""

from __future__ import annotations

import torch
from torch import nn

from dirnet_convert.errors import DirnetError
from dirnet_convert.finetune.checkpoint import Checkpoint, EpochSums
from dirnet_convert.finetune.job import TrainJob
from dirnet_convert.finetune.optimizer import build_average, build_optimizer
from dirnet_convert.finetune.schedule import learning_rate_schedule


class TrainState:
    """Student, optimizer, schedule, moving average, and the position: ``step`` steps are done.

    Each epoch is ``steps_per_epoch`` steps long, so ``step`` alone says which epoch and batch come next.
    """

    def __init__(self, job: TrainJob, device: torch.device) -> None:
        self.job, self.device = job, device
        self.student = job.student.to(device)
        self.optimizer = build_optimizer(self.student, job.options)
        self.average = build_average(self.student, job.options)
        self.steps_per_epoch = job.data.steps_per_epoch(job.options.batch_size)
        self.total_steps = self.steps_per_epoch * job.options.epochs
        self.schedule = learning_rate_schedule(self.optimizer, job.options, self.steps_per_epoch)
        self.step = 0
        self.lines = 0
        self.sums = EpochSums()

    @property
    def evaluated(self) -> nn.Module:
        """The network whose accuracy counts and which is saved: the moving average where there is one."""
        return self.student if self.average is None else self.average.module

    def capture(self) -> Checkpoint:
        """Return everything that a resumed training needs.

        Raises:
            DirnetError: a weight is NaN or infinite, so that there is nothing good to keep.
        """
        self.check_finite()
        return Checkpoint(
            identity=self.job.identity(),
            step=self.step,
            lines=self.lines,
            sums=self.sums,
            student=self.student.state_dict(),
            optimizer=self.optimizer.state_dict(),
            average=None if self.average is None else self.average.module.state_dict(),
            cpu_random=torch.get_rng_state(),
            cuda_random=torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        )

    def restore(self, saved: Checkpoint) -> None:
        """Go on from ``saved``; a changed number of epochs stretches the schedules over the new length."""
        self.student.load_state_dict(saved.student)
        self.optimizer.load_state_dict(saved.optimizer)
        if self.average is not None and saved.average is not None:
            self.average.module.load_state_dict(saved.average)
        self.step, self.lines, self.sums = saved.step, saved.lines, saved.sums
        torch.set_rng_state(saved.cpu_random)
        if self.device.type == "cuda" and len(saved.cuda_random) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(saved.cuda_random)

    def check_finite(self) -> None:
        """Raise DirnetError where a parameter is NaN or infinite; sign() would hide it from the loss."""
        for name, parameter in self.student.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise diverged(self.job, self.step, f"the parameter {name} is not finite")


def diverged(job: TrainJob, step: int, what: str) -> DirnetError:
    """Return the error for a training whose numbers have run away."""
    return DirnetError(
        f"Training diverged at step {step}: {what}. The last checkpoint and weights are kept; lower "
        f"{job.section}.lr, or set {job.section}.clip_grad_norm=1, and use --restart."
    )
