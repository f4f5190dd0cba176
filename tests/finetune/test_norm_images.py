"""Statistics of batch norms may be measured again before a network in training is tested and kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dirnet_convert.errors import UsageError
from dirnet_convert.finetune.job import TrainJob
from dirnet_convert.finetune.loop import train
from dirnet_convert.finetune.norm_images import measure_norms_again
from dirnet_convert.finetune.ranks import Ranks
from dirnet_convert.finetune.schedule import set_estimators
from dirnet_convert.recipe import EstimatorKind

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def _job(tiny: ModuleType, folder: Path, **options: object) -> TrainJob:
    return tiny.tiny_job(folder, options=dataclasses.replace(tiny.OPTIONS, **options))


def _first_inputs(job: TrainJob, images: int) -> torch.Tensor:
    """What the first batch norm sees of the first ``images`` of those that are measured."""
    batches = job.data.plain_train_batches(images, images, job.seed)
    with torch.no_grad():
        return job.student.stem[0](torch.cat(list(batches)))


def test_kept_statistics_are_those_of_plain_training_images(tiny: ModuleType, tmp_path: Path) -> None:
    job = _job(tiny, tmp_path, norm_images=48, ema_decay=0.0)
    train(job)
    saved = load_file(tmp_path / "model.safetensors")
    seen = _first_inputs(job, 48)
    # Each of the three batches of 16 weighs the same, and so do all images.
    assert torch.allclose(saved["stem.1.running_mean"], seen.mean((0, 2, 3)), atol=1e-5)
    variances = torch.stack([batch.var((0, 2, 3)) for batch in seen.split(16)])
    assert torch.allclose(saved["stem.1.running_var"], variances.mean(0), rtol=1e-5)


def test_weights_learn_the_same(tiny: ModuleType, tmp_path: Path) -> None:
    """But for DTE, whose quantiles are those of a network that is tested."""
    estimator = dataclasses.replace(tiny.ESTIMATOR, weights=EstimatorKind.EDE, inputs=EstimatorKind.EDE)
    with_, without = (
        dataclasses.replace(
            _job(tiny, tmp_path / str(images), norm_images=images, ema_decay=0.0), estimator=estimator
        )
        for images in (32, 0)
    )
    for job in (with_, without):
        set_estimators(job.student, estimator)
        train(job)
    pairs = list(zip(with_.student.named_parameters(), without.student.parameters(), strict=True))
    assert all(torch.equal(ours, theirs) for (_, ours), theirs in pairs)
    assert not torch.equal(with_.student.bn2.running_mean, without.student.bn2.running_mean)


def test_the_moving_average_is_what_is_measured(tiny: ModuleType, tmp_path: Path) -> None:
    job = _job(tiny, tmp_path, norm_images=32, ema_decay=0.9)
    train(job)
    saved = load_file(tmp_path / "model.safetensors")
    student = job.student.eval()
    student.load_state_dict(saved)
    seen = _first_inputs(job, 32)
    assert torch.allclose(saved["stem.1.running_mean"], seen.mean((0, 2, 3)), atol=1e-5)


def test_images_held_out_are_not_measured(tiny: ModuleType, tmp_path: Path) -> None:
    job = _job(tiny, tmp_path)
    rest, held_out = job.data.hold_out(0.5, job.seed)
    measured = torch.cat(list(rest.plain_train_batches(1000, 16, job.seed)))
    others = torch.cat([images for images, _ in held_out.test_batches(16)])
    assert len(measured) == len(others) == job.data.train_size // 2
    same = (measured[:, None] == others[None]).flatten(2).all(2)
    assert not same.any()


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_images(tiny: ModuleType, tmp_path: Path, processes: int) -> None:
    """What the processes average is each one's share of the images, no image twice."""
    data = tiny.tiny_data()
    whole = torch.cat(list(data.plain_train_batches(50, 8, 3)))
    ranks = [Ranks(k, processes, torch.device("cpu")) for k in range(processes)]
    parts = [torch.cat(list(data.plain_train_batches(50, 8, 3, r.shard))) for r in ranks]
    assert torch.equal(torch.cat(parts), whole) and len(whole) == 50


def test_nothing_else_changes(tiny: ModuleType, tmp_path: Path) -> None:
    job = _job(tiny, tmp_path, norm_images=32)
    before = {name: value.clone() for name, value in job.student.state_dict().items()}
    random, modes = torch.get_rng_state(), [m.training for m in job.student.modules()]
    measure_norms_again(job, job.student)
    changed = {
        name for name, value in job.student.state_dict().items() if not torch.equal(value, before[name])
    }
    norms = [name for name, m in job.student.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert changed == {f"{norm}.{kind}" for norm in norms for kind in _STATISTICS}
    assert torch.equal(random, torch.get_rng_state())
    assert modes == [m.training for m in job.student.modules()]
    assert all(m.momentum == 0.1 for m in job.student.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize(("count", "processes"), [(1, 1), (-4, 1), (3, 2)])
def test_too_few_images_are_refused(tiny: ModuleType, tmp_path: Path, count: int, processes: int) -> None:
    job = _job(tiny, tmp_path, norm_images=count)
    job = dataclasses.replace(job, ranks=Ranks(0, processes, torch.device("cpu")))
    with pytest.raises(UsageError, match=f"finetune.norm_images is {count}; .* at least"):
        train(job)
