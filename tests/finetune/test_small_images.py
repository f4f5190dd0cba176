"""A training may begin with smaller images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

import pytest

from dirnet_convert.errors import UsageError
from dirnet_convert.finetune.loop import train


def test_small_images_come_first(tiny: ModuleType, tmp_path: Path) -> None:
    options = dataclasses.replace(tiny.OPTIONS, epochs=3, small_image_size=6, small_first=0.67)
    distill = dataclasses.replace(tiny.DISTILL, teacher_norm_images=0)
    job = tiny.tiny_job(tmp_path, options=options, distill=distill)
    sizes: list[int] = []
    job.teacher_forward.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-1]))
    train(job)
    assert sizes == [6] * 2 * tiny.STEPS_PER_EPOCH + [8] * tiny.STEPS_PER_EPOCH


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"small_first": 0.5}, "small_image_size is 0 and finetune.small_first 0.5; set both"),
        ({"small_image_size": 6}, "small_image_size is 6 and finetune.small_first 0.0; set both"),
        ({"small_image_size": 6, "small_first": 1.0}, "small_first is 1.0; it must be .* below 1"),
    ],
)
def test_half_a_wish_for_small_images_is_refused(
    tiny: ModuleType, tmp_path: Path, changes: dict[str, float], said: str
) -> None:
    job = tiny.tiny_job(tmp_path, options=dataclasses.replace(tiny.OPTIONS, **changes))
    with pytest.raises(UsageError, match=said):
        train(job)
