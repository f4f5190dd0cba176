"""A training on an accelerator, as far as one can be had without: by fake tensors.

A fake tensor has a shape, a type and a device, and no values; an operation on two devices at once raises, as
it would on a real one. Backward passes and autocast need a driver; the operations around them do not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dirnet_convert.data.augment import Augmentation, augment_batch
from dirnet_convert.finetune.divergence import gradient_norm
from dirnet_convert.finetune.ranks import Ranks
from dirnet_convert.finetune.schedule import (
    clip_weights,
    observe_distributions,
    set_estimator_progress,
    set_estimators,
)
from dirnet_convert.finetune.state import TrainState
from dirnet_convert.finetune.tasks import task_of
from dirnet_convert.recipe import AugmentKind, EstimatorKind, WeightClip

CUDA = torch.device("cuda", 0)


@pytest.fixture
def fake_accelerator() -> Iterator[None]:
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


@pytest.mark.parametrize("augment", [AugmentKind.NONE, AugmentKind.FLIP, AugmentKind.FLIP_CROP])
def test_images_are_augmented_where_they_are(fake_accelerator: None, augment: AugmentKind) -> None:
    images = torch.empty(4, 3, 32, 32, dtype=torch.uint8, device=CUDA)
    augmented = augment_batch(images, Augmentation(augment), torch.Generator(), mirror=True)
    assert augmented.device == CUDA and augmented.shape == images.shape and augmented.dtype == torch.uint8


@pytest.mark.parametrize("kind", list(EstimatorKind))
def test_a_step_stays_on_the_accelerator(
    tiny: ModuleType,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    kind: EstimatorKind,
) -> None:
    estimator = dataclasses.replace(
        tiny.ESTIMATOR, weights=kind, inputs=kind, gradual_inputs=0.5, clip=WeightClip.QUANTILE
    )
    # timm's moving average asks a real driver for a generator.
    options = dataclasses.replace(tiny.OPTIONS, ema_decay=0.0)
    job = tiny.tiny_job(tmp_path, estimator=estimator, options=options, ranks=Ranks(0, 1, CUDA))
    request.getfixturevalue("fake_accelerator")
    set_estimators(job.student, estimator)
    state, task = TrainState(job), task_of(job)
    job.teacher_forward.to(CUDA).eval()
    step = task.step(pytest.fail)
    images = torch.empty(tiny.BATCH, 3, 8, 8, device=CUDA)
    labels = torch.zeros(tiny.BATCH, dtype=torch.int64)
    observe_distributions(task.observed(state.student), images)
    set_estimator_progress(state.student, 1, 0, state.total_steps)
    loss, parts = step(images, task.moved(labels, CUDA))
    for parameter in state.student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    norm = gradient_norm(state.student)
    state.optimizer.step()
    clip_weights(state.student, estimator, 0.1)
    for value in (loss, parts, norm, *state.student.state_dict().values()):
        assert value.device == CUDA
