"""The teacher's batch norms may be measured on the images that it teaches with."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, fx, nn

from dirnet_convert.data.augment import Augmentation
from dirnet_convert.errors import UsageError
from dirnet_convert.finetune.job import TrainJob
from dirnet_convert.finetune.loop import train
from dirnet_convert.finetune.norm_images import measure_teacher
from dirnet_convert.finetune.ranks import Ranks
from dirnet_convert.finetune.tasks import task_of
from dirnet_convert.recipe import AugmentKind

_IMAGES = 40
_BATCHES = 3  # whole ones of 16


def _job(tiny: ModuleType, folder: Path, images: int = _IMAGES, **options: object) -> TrainJob:
    distill = dataclasses.replace(tiny.DISTILL, teacher_norm_images=images)
    return tiny.tiny_job(folder, options=dataclasses.replace(tiny.OPTIONS, **options), distill=distill)


def _augment(job: TrainJob, size: int = 0) -> Augmentation:
    return Augmentation(job.options.augment, size, job.options.crop_area_min)


def _taught(job: TrainJob, augment: Augmentation) -> list[Tensor]:
    """The first images of the first epoch, as they are augmented."""
    batches = job.data.train_batches(job.options.batch_size, augment, job.seed, 0)
    return [images for images, _ in itertools.islice(batches, _BATCHES)]


def test_statistics_are_those_of_augmented_images(tiny: ModuleType, tmp_path: Path) -> None:
    job = _job(tiny, tmp_path)
    assert measure_teacher(job, _augment(job))
    stem = job.teacher_forward.network.stem
    with torch.no_grad():
        seen = [stem[0](images) for images in _taught(job, _augment(job))]
    assert torch.allclose(stem[1].running_mean, torch.cat(seen).mean((0, 2, 3)), atol=1e-5)
    variances = torch.stack([values.var((0, 2, 3)) for values in seen])
    assert torch.allclose(stem[1].running_var, variances.mean(0), rtol=1e-5)


def test_another_size_is_measured_anew(tiny: ModuleType, tmp_path: Path) -> None:
    job = _job(tiny, tmp_path, epochs=3, small_image_size=6, small_first=0.67)
    norm, sizes, means = job.teacher_forward.network.stem[1], [], []

    def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
        sizes.append(inputs[0].shape[-1])
        if not norm.training:
            means.append(norm.running_mean.clone())

    job.teacher_forward.register_forward_pre_hook(look)
    train(job)
    steps = tiny.STEPS_PER_EPOCH
    assert sizes == [6] * (_BATCHES + 2 * steps) + [8] * (_BATCHES + steps)
    assert len({tuple(mean.tolist()) for mean in means[: 2 * steps]}) == 1
    assert len({tuple(mean.tolist()) for mean in means}) == 2
    other = _job(tiny, tmp_path)
    measure_teacher(other, _augment(other, 8))
    assert torch.equal(other.teacher_forward.network.stem[1].running_mean, means[-1])


def test_the_step_has_the_teacher_that_was_measured(tiny: ModuleType, tmp_path: Path) -> None:
    """A traced teacher's norms are parts of its convolutions there."""
    job = _job(tiny, tmp_path)
    job = dataclasses.replace(job, teacher_forward=fx.symbolic_trace(job.teacher_forward.eval()))
    task = task_of(job)
    task.step(lambda _: None)
    (images, *_) = _taught(job, _augment(job))
    with torch.no_grad():
        before, _ = task.teacher(images)
        measure_teacher(job, _augment(job))
        task.renew_teacher()
        (after, _), (measured, _) = task.teacher(images), job.teacher_forward(images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in task.teacher.modules())
    assert torch.allclose(after, measured, atol=1e-5) and not torch.allclose(after, before, atol=1e-2)


@pytest.mark.parametrize("images", [0, 40])
def test_nothing_to_measure(tiny: ModuleType, tmp_path: Path, images: int) -> None:
    job = _job(tiny, tmp_path, images)
    if images:
        for name in ("stem.1", "bn1", "bn2"):
            job.teacher_forward.network.set_submodule(name, nn.Identity())
    before = {name: value.clone() for name, value in job.teacher_forward.state_dict().items()}
    assert not measure_teacher(job, _augment(job))
    assert all(torch.equal(value, before[name]) for name, value in job.teacher_forward.state_dict().items())
    assert not measure_teacher(dataclasses.replace(job, teacher_forward=None), _augment(job))


def test_a_teacher_that_does_not_teach_is_not_measured(tiny: ModuleType, tmp_path: Path) -> None:
    job = _job(tiny, tmp_path)
    distill = dataclasses.replace(job.distill, logit_weight=0.0, rbd_weight=0.0)
    assert not measure_teacher(dataclasses.replace(job, distill=distill), _augment(job))


def test_processes_share_the_images(tiny: ModuleType, tmp_path: Path) -> None:
    """Of two processes each measures half of a batch of twice the size."""
    means = []
    for rank in range(2):
        job = _job(tiny, tmp_path, batch_size=8, augment=AugmentKind.NONE)
        job = dataclasses.replace(job, ranks=_Alone(rank, 2, torch.device("cpu")))
        measure_teacher(job, _augment(job))
        means.append(job.teacher_forward.network.stem[1].running_mean)
    whole = _job(tiny, tmp_path, augment=AugmentKind.NONE)
    shared = torch.stack(means).mean(0)
    measure_teacher(whole, _augment(whole))
    assert not torch.equal(means[0], means[1])
    assert torch.allclose(shared, whole.teacher_forward.network.stem[1].running_mean, atol=1e-5)


class _Alone(Ranks):
    """One of several processes, whose means are its own."""

    def mean(self, values: Tensor) -> Tensor:
        return values


def test_a_negative_number_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"distill\.teacher_norm_images is -1; it must be at least 0"):
        train(_job(tiny, tmp_path, -1))
