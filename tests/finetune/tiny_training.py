"""A training that takes a second: made-up images, a small network; as a script, one that may kill itself.

python tiny_training.py RUN COMPILE [SIGNAL STEP [PLAIN_BATCH]]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dirnet_convert.binarize.layers import BinaryConv2d
from dirnet_convert.data.source import DataInfo, Limits
from dirnet_convert.data.tensor_source import TensorSource, TensorSplit
from dirnet_convert.errors import DirnetError
from dirnet_convert.finetune.job import TrainJob
from dirnet_convert.finetune.loop import train
from dirnet_convert.finetune.observer import SilentObserver, StepReport
from dirnet_convert.finetune.schedule import set_estimators
from dirnet_convert.recipe import (
    AugmentKind,
    ConvertOptions,
    DistillOptions,
    EstimatorKind,
    EstimatorOptions,
    TrainOptions,
)
from dirnet_convert.run import RunFolder, Stage

SEED = 5
CLASSES = 4
BATCH = 16
STEPS_PER_EPOCH = 8
OPTIONS = TrainOptions(
    epochs=3,
    batch_size=BATCH,
    lr=0.05,
    compile=False,
    ema_decay=0.9,
    checkpoint_minutes=0.0,
    clip_grad_norm=5.0,
    norm_images=32,
)
DISTILL = DistillOptions(
    label_weight=1.0, logit_weight=0.5, temperature=2.0, rbd_weight=0.5, teacher_norm_images=24
)
ESTIMATOR = EstimatorOptions(quantile_steps=3, gradual_weights=0.3)


class TinyNetwork(nn.Module):
    """Stem, two more convolutions (binary, if asked), a linear layer; dropout, to need random states."""

    def __init__(self, binary: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardtanh())
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, stride=2, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.activation = nn.Hardtanh()
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(8, CLASSES)
        if binary:
            self.conv1 = BinaryConv2d.from_conv(self.conv1, ConvertOptions(), ESTIMATOR)
            self.conv2 = BinaryConv2d.from_conv(self.conv2, ConvertOptions(), ESTIMATOR)

    def representations(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        first = self.activation(self.bn1(self.conv1(self.stem(x))))
        second = self.activation(self.bn2(self.conv2(first)))
        return self.head(self.dropout(second.mean((2, 3)))), (first, second)

    def forward(self, x: Tensor) -> Tensor:
        return self.representations(x)[0]


class WithRepresentations(nn.Module):
    """The same network, returning its representations too."""

    def __init__(self, network: TinyNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.network.representations(x)


def tiny_data() -> TensorSource:
    """Images whose class is the place of a bright square, so that they can be learnt."""
    generator = torch.Generator().manual_seed(SEED)
    splits = []
    for count in (BATCH * STEPS_PER_EPOCH, 40):
        labels = torch.arange(count) % CLASSES
        images = torch.randint(0, 100, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
        for image, label in zip(images, labels.tolist(), strict=True):
            top, left = 4 * (label // 2), 4 * (label % 2)
            image[:, top : top + 4, left : left + 4] += 120
        splits.append(TensorSplit(images, labels))
    names = tuple(f"place {k}" for k in range(CLASSES))
    info = DataInfo("places", CLASSES, names, 3, 8, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2))
    return TensorSource(info, Limits(), *splits)


def tiny_job(folder: Path, **changes: Any) -> TrainJob:
    """A job with everything switched on; ``changes`` replace its fields."""
    print(f"seed {SEED}")
    torch.manual_seed(SEED)
    teacher, student = TinyNetwork(binary=False), TinyNetwork(binary=True)
    values: dict[str, Any] = {
        "run": RunFolder(folder),
        "stage": Stage.FINETUNED,
        "student": student,
        "student_forward": WithRepresentations(student),
        "teacher_forward": WithRepresentations(teacher),
        "data": tiny_data(),
        "options": OPTIONS,
        "distill": DISTILL,
        "estimator": ESTIMATOR,
        "seed": SEED,
    }
    return TrainJob(**(values | changes))


class SignalAt(SilentObserver):
    """Sends this process a signal after a step."""

    def __init__(self, number: int, step: int) -> None:
        self.number, self.step = number, step

    def stepped(self, report: StepReport) -> None:
        if report.step == self.step:
            os.kill(os.getpid(), self.number)


def main(folder: str, compiled: str, number: str = "0", step: str = "0", plain: str = "0") -> None:
    """Train in ``folder``, in as many processes as torchrun started.

    The first one gets the signal ``number`` after ``step``. ``plain``, a batch size, leaves away what depends
    on how a batch is parted.
    """
    import dataclasses

    from dirnet_convert.finetune.ranks import open_ranks

    torch.set_num_threads(1)
    options = dataclasses.replace(OPTIONS, compile=compiled == "1")
    try:
        with open_ranks() as ranks:
            job = tiny_job(Path(folder), options=options, ranks=ranks)
            if plain != "0":
                job = without_batch_effects(job, int(plain))
            watched = int(number) and ranks.is_first
            train(job, SignalAt(int(number), int(step)) if watched else SilentObserver())
    except DirnetError as error:
        print(error)
        sys.exit(error.exit_code)


def without_batch_effects(job: TrainJob, batch: int) -> TrainJob:
    """Return ``job`` with this batch size, without what sees a batch as a whole or draws random numbers."""
    import dataclasses

    estimator = dataclasses.replace(ESTIMATOR, weights=EstimatorKind.EDE, inputs=EstimatorKind.EDE)
    set_estimators(job.student, estimator)
    for network in (job.student, job.teacher_forward.network):
        network.stem[1] = network.bn1 = network.bn2 = nn.Identity()
        network.dropout.p = 0.0
    options = dataclasses.replace(job.options, batch_size=batch, augment=AugmentKind.NONE, warmup_epochs=0.0)
    return dataclasses.replace(job, options=options, estimator=estimator)


if __name__ == "__main__":
    main(*sys.argv[1:])
