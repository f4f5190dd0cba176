"""The moving parts of a training, captured in a checkpoint and put back from one."""

from __future__ import annotations

import torch
from torch import nn

from dirnet_convert.finetune.checkpoint import Best, Checkpoint, EpochSums, write_checkpoint
from dirnet_convert.finetune.divergence import DivergedError, broken_gradient
from dirnet_convert.finetune.job import TrainJob
from dirnet_convert.finetune.optimizer import build_average, build_optimizer
from dirnet_convert.finetune.random_states import RandomStates, put_random_states, take_random_states
from dirnet_convert.finetune.schedule import RateSchedule, first_part_steps
from dirnet_convert.run import Stage


class TrainState:
    """Student, optimizer, schedule, moving average, and the position: ``step`` steps are done.

    Each epoch is ``steps_per_epoch`` steps long, so ``step`` alone says which epoch and batch come next.
    """

    def __init__(self, job: TrainJob) -> None:
        self.job, self.device = job, job.ranks.device
        self.student = job.student.to(self.device)
        self.optimizer = build_optimizer(self.student, job.options)
        self.average = build_average(self.student, job.options)
        self.steps_per_epoch = job.data.steps_per_epoch(job.options.batch_size * job.ranks.count)
        self.total_steps = self.steps_per_epoch * job.options.epochs
        self.schedule = RateSchedule(self.optimizer, job.options, self.steps_per_epoch)
        self.first_part_steps = first_part_steps(job.options, self.total_steps)
        self.step = 0
        self.lines = 0
        self.sums = EpochSums()
        self.best: Best | None = None
        self.saved_step = 0
        # Of the last step's gradients, which are kept until the next ones: read with the next step's loss, so
        # that an accelerator is waited for once a step.
        self.gradient_norm = torch.zeros((), device=self.device)

    @property
    def evaluated(self) -> nn.Module:
        """The network whose accuracy counts and which is saved: the moving average where there is one."""
        return self.student if self.average is None else self.average.module

    def save(self) -> None:
        """Write everything that a resumed training needs into the run; all processes must call this.

        Raises:
            DivergedError: a weight or gradient is NaN or infinite, so that there is nothing good to keep.
        """
        self.check_finite()
        first, *others = self.job.ranks.gathered(take_random_states(self.device).to_plain())
        self.saved_step = self.step
        if not self.job.ranks.is_first:
            return
        checkpoint = Checkpoint(
            identity=self.job.identity(),
            step=self.step,
            lines=self.lines,
            sums=self.sums,
            student=self.student.state_dict(),
            optimizer=self.optimizer.state_dict(),
            average=None if self.average is None else self.average.module.state_dict(),
            cpu_random=first["cpu"],
            cuda_random=first["cuda"],
            best=self.best,
            other_random=others,
        )
        write_checkpoint(self.job.run, checkpoint)

    def restore(self, saved: Checkpoint) -> None:
        """Go on from ``saved``; a changed number of epochs stretches the schedules over the new length.

        From step 0 only the weights and the number of lines are taken: the options may have changed since.
        """
        self.student.load_state_dict(saved.student)
        self.lines = saved.lines
        if saved.step == 0:
            # The average begins with the first step, whatever it was before.
            return
        self.optimizer.load_state_dict(saved.optimizer)
        if self.average is not None and saved.average is not None:
            self.average.module.load_state_dict(saved.average)
        self.step, self.sums, self.best = saved.step, saved.sums, saved.best
        self.saved_step = saved.step
        states = [{"cpu": saved.cpu_random, "cuda": saved.cuda_random}, *saved.other_random]
        put_random_states(RandomStates(**states[self.job.ranks.rank]), self.device)

    def check_finite(self) -> None:
        """Raise DivergedError where a weight or gradient is NaN or infinite; sign() would hide it from the
        loss."""
        if not bool(torch.isfinite(self.gradient_norm)):
            raise self.diverged(self.step, broken_gradient(self.student))
        for name, parameter in self.student.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise self.diverged(self.step, f"the parameter '{name}' is not finite")

    def diverged(self, step: int, what: str) -> DivergedError:
        """Return the error for a training whose numbers have run away at ``step``."""
        section = self.job.section
        by = f" by {self.job.resuming_command}" if self.job.stage is Stage.PRETRAINED else ""
        kept = f"The checkpoint of step {self.saved_step} is kept; go on from it{by} with"
        if self.saved_step == 0:
            kept = f"The weights that it began with are kept; begin again{by} with"
        return DivergedError(
            f"Training diverged at step {step}: {what}. {kept} a lower rate, such as --set "
            f"{section}.lr={self.job.options.lr / 4:g}, or with --set {section}.clip_grad_norm=1."
        )
