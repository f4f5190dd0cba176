"""The training loop, for full-precision and binarized networks alike."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from dirnet_convert.binarize.ede import scheduled_t
from dirnet_convert.finetune.checkpoint import EpochSums, write_checkpoint
from dirnet_convert.finetune.interrupt import InterruptFlag, StoppedError, deferred_interrupt
from dirnet_convert.finetune.job import TrainJob, TrainResult, accept_job
from dirnet_convert.finetune.metrics import append_line, keep_lines, last_scores, read_lines
from dirnet_convert.finetune.observer import EpochReport, SilentObserver, StepReport, TrainObserver
from dirnet_convert.finetune.schedule import observe_distributions, set_estimator_progress
from dirnet_convert.finetune.state import TrainState, diverged
from dirnet_convert.finetune.step import StepFunction
from dirnet_convert.finetune.tasks import TrainTask, task_of
from dirnet_convert.models.state import save_tensors


def train(job: TrainJob, observer: TrainObserver | None = None) -> TrainResult:
    """Train ``job.student`` to the end, going on from the run's checkpoint where there is one.

    Writes metrics.jsonl, model.safetensors (what was evaluated last) and checkpoints into the run. The test
    accuracy of each epoch is recorded and decides nothing.

    Raises:
        UsageError: options that cannot be trained with, or other ones than the checkpoint's.
        DirnetError: the loss or a weight became NaN or infinite; the last checkpoint is kept.
        StoppedError: Ctrl-C; a checkpoint was written.
    """
    observer = observer or SilentObserver()
    saved = accept_job(job)
    task = task_of(job)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    state = TrainState(job, device)
    if saved is None:
        torch.manual_seed(job.seed)
        state.lines = len(read_lines(job.run.metrics_path))
    else:
        state.restore(saved)
    keep_lines(job.run.metrics_path, state.lines)
    if state.step >= state.total_steps:
        return _result(job, task, state, 0.0, already_finished=True)
    step = _step_function(job, task, device, observer)
    for sentence in job.data.notes:
        observer.note(sentence)
    started = time.perf_counter()
    observer.started(state.step, state.total_steps, job.options.epochs)
    with deferred_interrupt() as interrupt:
        while state.step < state.total_steps:
            _train_epoch(job, task, state, step, observer, interrupt)
            _finish_epoch(job, task, state, observer)
            if interrupt.is_set and state.step < state.total_steps:
                raise _stopped(state)
    return _result(job, task, state, time.perf_counter() - started, already_finished=False)


def _step_function(
    job: TrainJob, task: TrainTask, device: torch.device, observer: TrainObserver
) -> StepFunction:
    job.student_forward.to(device).train()
    job.student.train()
    if job.teacher_forward is not None:
        job.teacher_forward.to(device).eval().requires_grad_(False)
    return task.step(observer.note)


def _train_epoch(
    job: TrainJob,
    task: TrainTask,
    state: TrainState,
    step: StepFunction,
    observer: TrainObserver,
    interrupt: InterruptFlag,
) -> None:
    """Run the steps that are left of the epoch at ``state.step``."""
    options = job.options
    epoch, first = divmod(state.step, state.steps_per_epoch)
    seconds_before, begun = state.sums.seconds, time.perf_counter()
    written = begun
    batches = job.data.train_batches(options.batch_size, options.augment, job.seed, epoch, start_batch=first)
    for images, labels in batches:
        loss = _one_step(job, task, state, step, images.to(state.device), task.moved(labels, state.device))
        now = time.perf_counter()
        state.sums.seconds = seconds_before + now - begun
        observer.stepped(StepReport(state.step, state.total_steps, epoch + 1, loss, len(images)))
        # After an epoch's last step the epoch is finished first: a checkpoint in between would skip its end.
        if interrupt.is_set and state.step % state.steps_per_epoch:
            write_checkpoint(job.run, state.capture())
            raise _stopped(state)
        if now - written > 60.0 * options.checkpoint_minutes and state.step % state.steps_per_epoch:
            write_checkpoint(job.run, state.capture())
            written = time.perf_counter()


def _stopped(state: TrainState) -> StoppedError:
    return StoppedError(
        f"Stopped at step {state.step} of {state.total_steps}; the same command goes on from there."
    )


def _one_step(
    job: TrainJob, task: TrainTask, state: TrainState, step: StepFunction, images: torch.Tensor, labels: Any
) -> float:
    state.schedule.step_update(state.step)
    if job.estimator is not None:
        if state.step % job.estimator.quantile_steps == 0:
            observe_distributions(task.observed(state.student), images)
        set_estimator_progress(state.student, state.step / state.total_steps)
    total, parts = step(images, labels)
    # One read of everything: on an accelerator each would wait for it.
    loss, *values = torch.cat([total.detach().view(1), parts]).tolist()
    if not math.isfinite(loss):
        raise diverged(job, state.step + 1, f"the loss is {loss}")
    total.backward()
    if job.options.clip_grad_norm > 0:
        torch.nn.utils.clip_grad_norm_(state.student.parameters(), job.options.clip_grad_norm)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    if state.average is not None:
        state.average.update(state.student, step=state.step)
    state.sums.add(len(images), loss, values)
    return loss


def _finish_epoch(job: TrainJob, task: TrainTask, state: TrainState, observer: TrainObserver) -> None:
    """Measure, then write the epoch's line, the weights and a checkpoint."""
    state.check_finite()
    scores = task.scores(state.evaluated, state.device.type, observer.evaluated)
    sums = state.sums
    fraction = (state.step - 1) / state.total_steps
    report = EpochReport(
        epoch=state.step // state.steps_per_epoch,
        step=state.step,
        train_loss=sums.loss / sums.images,
        losses={name: part / sums.images for name, part in zip(task.part_names, sums.parts, strict=True)},
        scores=scores,
        lr=state.optimizer.param_groups[0]["lr"],
        t=None if job.estimator is None else scheduled_t(fraction, job.estimator.t_min, job.estimator.t_max),
        images_per_s=sums.images / sums.seconds,
        seconds=sums.seconds,
    )
    state.sums = EpochSums()
    append_line(job.run.metrics_path, report, job.section)
    state.lines += 1
    save_tensors(state.evaluated.state_dict(), job.run.model_path)
    # Last, so that a crash before it repeats the epoch's end and cuts its line off again.
    write_checkpoint(job.run, state.capture())
    observer.finished_epoch(report)


def _result(
    job: TrainJob, task: TrainTask, state: TrainState, seconds: float, *, already_finished: bool
) -> TrainResult:
    return TrainResult(
        epochs=state.step // state.steps_per_epoch,
        scores=last_scores(job.run.metrics_path, task.score_names),
        seconds=seconds,
        already_finished=already_finished,
    )
