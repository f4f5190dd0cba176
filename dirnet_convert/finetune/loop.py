"""The training loop, for full-precision and binarized networks alike."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from dirnet_convert.binarize.ede import scheduled_t
from dirnet_convert.data.augment import Augmentation
from dirnet_convert.data.source import ImageSource, mixed_seed
from dirnet_convert.data.timed import Timed
from dirnet_convert.finetune.acceptance import accept_job
from dirnet_convert.finetune.checkpoint import EpochSums, mark_diverged, remove_leftovers
from dirnet_convert.finetune.divergence import DivergedError, broken_gradient, broken_layer, gradient_norm
from dirnet_convert.finetune.interrupt import InterruptFlag, StoppedError, deferred_interrupt
from dirnet_convert.finetune.job import TrainJob, TrainResult
from dirnet_convert.finetune.metrics import append_line, keep_lines, read_lines, scores_of
from dirnet_convert.finetune.norm_images import measure_norms_again, measure_teacher
from dirnet_convert.finetune.observer import EpochReport, SilentObserver, StepReport, TrainObserver
from dirnet_convert.finetune.random_states import put_random_states, take_random_states
from dirnet_convert.finetune.schedule import (
    clip_weights,
    epoch_image_size,
    fading_note,
    observe_distributions,
    part_progress,
    receiving_shares,
    set_estimator_progress,
    set_structure_progress,
    small_images_note,
)
from dirnet_convert.finetune.selection import better, part_training_images
from dirnet_convert.finetune.state import TrainState
from dirnet_convert.finetune.step import StepFunction
from dirnet_convert.finetune.tasks import TrainTask, task_of
from dirnet_convert.models.state import save_tensors


@dataclass(frozen=True)
class _Training:
    """What all steps of one training share."""

    job: TrainJob
    task: TrainTask
    state: TrainState
    step: StepFunction
    held_out: ImageSource | None
    observer: TrainObserver
    interrupt: InterruptFlag


def train(job: TrainJob, observer: TrainObserver | None = None) -> TrainResult:
    """Train ``job.student`` to the end, going on from the run's checkpoint where there is one.

    Writes metrics.jsonl, model.safetensors (the last epoch's weights, or the best on images held out) and
    checkpoints into the run. The test accuracy of each epoch is recorded and decides nothing.

    Raises:
        UsageError: options that cannot be trained with, or other ones than the checkpoint's.
        DivergedError: the loss, a gradient or a weight became NaN or infinite; the last checkpoint is kept.
        StoppedError: Ctrl-C; a checkpoint was written.
    """
    observer = observer or SilentObserver()
    job, held_out = part_training_images(replace(job, data=job.data.on(job.ranks.device)))
    saved = accept_job(job)
    task = task_of(job)
    state = TrainState(job)
    # Each process draws its own random numbers, the first one those of a training in one process.
    torch.manual_seed(mixed_seed(job.seed, job.ranks.rank) if job.ranks.rank else job.seed)
    if saved is None:
        state.lines = len(read_lines(job.run.metrics_path))
    else:
        state.restore(saved)
    job.ranks.wait()
    if job.ranks.is_first:
        remove_leftovers(job.run)
        keep_lines(job.run.metrics_path, state.lines)
    if state.step >= state.total_steps:
        return _result(job, task, state, 0.0, already_finished=True)
    step = _step_function(job, task, observer)
    fading = "" if job.estimator is None else fading_note(job.estimator, job.options)
    small = small_images_note(job.options, job.data.info.image_size)
    for sentence in (*job.data.notes, fading, small):
        if sentence:
            observer.note(sentence)
    started = time.perf_counter()
    observer.started(state.step, state.total_steps, job.options.epochs)
    try:
        with deferred_interrupt() as interrupt:
            if saved is None:
                # The first epoch's end replaces the run's weights; a crash there must not lose these.
                state.save()
            training = _Training(job, task, state, step, held_out, observer, interrupt)
            taught = None
            while state.step < state.total_steps:
                augment = _augmentation(state)
                if augment != taught and measure_teacher(job, augment):
                    task.renew_teacher()
                taught = augment
                last_images = _train_epoch(training, augment)
                _finish_epoch(training, last_images)
                if job.ranks.any(interrupt.is_set)[0] and state.step < state.total_steps:
                    raise _stopped(state)
    except DivergedError as error:
        if job.ranks.is_first:
            mark_diverged(job.run, str(error))
        raise
    return _result(job, task, state, time.perf_counter() - started, already_finished=False)


def _step_function(job: TrainJob, task: TrainTask, observer: TrainObserver) -> StepFunction:
    device = job.ranks.device
    job.student_forward.to(device).train()
    job.student.train()
    if job.teacher_forward is not None:
        job.teacher_forward.to(device).eval().requires_grad_(False)
    return task.step(observer.note)


def _augmentation(state: TrainState) -> Augmentation:
    """Return what is done to the images of the epoch at ``state.step``."""
    options = state.job.options
    size = epoch_image_size(options, state.step // state.steps_per_epoch)
    return Augmentation(options.augment, size, options.crop_area_min)


def _train_epoch(training: _Training, augment: Augmentation) -> torch.Tensor:
    """Run the steps that are left of the epoch at ``state.step``; return the last one's images."""
    job, state, options = training.job, training.state, training.job.options
    epoch, first = divmod(state.step, state.steps_per_epoch)
    seconds_before, waited_before, begun = state.sums.seconds, state.sums.data_wait_s, time.perf_counter()
    written = begun
    batches = Timed(
        job.data.train_batches(
            options.batch_size, augment, job.seed, epoch, start_batch=first, shard=job.ranks.shard
        )
    )
    for images, labels in batches:
        loss = _one_step(training, images, training.task.moved(labels, state.device))
        now = time.perf_counter()
        state.sums.seconds = seconds_before + now - begun
        state.sums.data_wait_s = waited_before + batches.seconds
        count = len(images) * job.ranks.count
        training.observer.stepped(StepReport(state.step, state.total_steps, epoch + 1, loss, count))
        # After an epoch's last step the epoch is finished first: a checkpoint in between would skip its end.
        if state.step % state.steps_per_epoch == 0:
            continue
        due = now - written > 60.0 * options.checkpoint_minutes
        stop, due = job.ranks.any(training.interrupt.is_set, due and job.ranks.is_first)
        if stop or due:
            state.save()
            written = time.perf_counter()
        if stop:
            raise _stopped(state)
    return images


def _stopped(state: TrainState) -> StoppedError:
    where = f"Stopped at step {state.step} of {state.total_steps}"
    return StoppedError(f"{where}; {state.job.resuming_command} goes on from there.")


def _one_step(training: _Training, images: torch.Tensor, labels: Any) -> float:
    job, task, state = training.job, training.task, training.state
    state.schedule.step_update(state.step)
    if job.estimator is not None:
        if state.step % job.estimator.quantile_steps == 0:
            observe_distributions(task.observed(state.student), images)
        position = (state.step, state.first_part_steps, state.total_steps)
        set_estimator_progress(state.student, *position)
        if job.estimator.gradual_structure > 0.0:
            set_structure_progress(job.student_forward, job.estimator, *position)
    random = take_random_states(state.device)
    total, parts = training.step(images, labels)
    # One read of everything: on an accelerator each would wait for it.
    read = torch.cat([total.detach().view(1), parts, state.gradient_norm.view(1)])
    loss, *values, last_norm = job.ranks.mean(read).tolist()
    if not math.isfinite(last_norm):
        raise state.diverged(state.step, broken_gradient(state.student))
    if not math.isfinite(loss):
        put_random_states(random, state.device)
        where = broken_layer(lambda: training.step(images, labels), images, job.student, task.teacher)
        own = "" if bool(torch.isfinite(total)) else f"the loss is {total.item()}, {where}"
        what = next(text for text in job.ranks.gathered(own) if text)
        raise state.diverged(state.step + 1, what)
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()
    state.gradient_norm = norm = gradient_norm(state.student)
    if job.options.clip_grad_norm > 0:
        # Gradients that are not finite stay as they are, so that the broken one can be named.
        torch.nn.utils.clip_grads_with_norm_(
            state.student.parameters(), job.options.clip_grad_norm, norm.nan_to_num(0.0, 0.0, 0.0)
        )
    state.optimizer.step()
    if job.estimator is not None:
        clip_weights(state.student, job.estimator, state.step / state.total_steps)
    state.step += 1
    if state.average is not None:
        state.average.update(state.student, step=state.step)
    state.sums.add(len(images) * job.ranks.count, loss, values)
    return loss


def _finish_epoch(training: _Training, last_images: torch.Tensor) -> None:
    """Measure, then write the epoch's line, the weights and a checkpoint."""
    job, task, state = training.job, training.task, training.state
    state.check_finite()
    epoch, hear = state.step // state.steps_per_epoch, training.observer.evaluated
    job.ranks.copy_first(state.evaluated)
    measure_norms_again(job, task.observed(state.evaluated))
    held = {} if training.held_out is None else task.scores(state.evaluated, training.held_out, hear)
    scores = task.scores(state.evaluated, job.data, hear)
    state.best = better(state.best, epoch, held)
    sums = state.sums
    fraction = part_progress(state.step - 1, state.first_part_steps, state.total_steps)
    report = EpochReport(
        epoch=epoch,
        step=state.step,
        train_loss=sums.loss / sums.images,
        losses={name: part / sums.images for name, part in zip(task.part_names, sums.parts, strict=True)},
        scores={f"test_{name}": value for name, value in scores.items()},
        held_out={f"holdout_{name}": value for name, value in held.items()},
        lr=state.optimizer.param_groups[0]["lr"],
        t=None if job.estimator is None else scheduled_t(fraction, job.estimator.t_min, job.estimator.t_max),
        images_per_s=sums.images / sums.seconds,
        data_wait_s=sums.data_wait_s,
        seconds=sums.seconds,
        receiving=()
        if job.estimator is None
        else receiving_shares(state.student, task.observed(state.student), last_images),
    )
    state.sums = EpochSums()
    state.lines += 1
    if job.ranks.is_first:
        append_line(job.run.metrics_path, report, job.section)
    if job.ranks.is_first and (state.best is None or state.best.epoch == epoch):
        save_tensors(state.evaluated.state_dict(), job.run.model_path)
    # Last, so that a crash before it repeats the epoch's end and cuts its line off again.
    state.save()
    training.observer.finished_epoch(report)


def _result(
    job: TrainJob, task: TrainTask, state: TrainState, seconds: float, *, already_finished: bool
) -> TrainResult:
    job.ranks.wait()
    epochs = state.step // state.steps_per_epoch
    kept = epochs if state.best is None else state.best.epoch
    names = tuple(f"test_{name}" for name in task.score_names)
    return TrainResult(
        epochs=epochs,
        kept_epoch=kept,
        scores=scores_of(job.run.metrics_path, kept - epochs - 1, names),
        seconds=seconds,
        already_finished=already_finished,
    )
