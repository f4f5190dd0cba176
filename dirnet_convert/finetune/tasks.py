"""What a training does otherwise for classifiers and for detectors: its step, its losses, its score."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from dirnet_convert.binarize.fading import FadingNetwork
from dirnet_convert.binarize.kernel_conv import Arithmetic
from dirnet_convert.data.boxes import Target
from dirnet_convert.data.source import ImageSource
from dirnet_convert.evaluate import evaluate, module_predictor
from dirnet_convert.evaluate_detection import evaluate_detector
from dirnet_convert.finetune.arithmetic import set_arithmetic
from dirnet_convert.finetune.detection import DetectionStep, set_region_samples
from dirnet_convert.finetune.job import TrainJob
from dirnet_convert.finetune.losses import PART_NAMES, Objective
from dirnet_convert.finetune.norm_tails import with_norm_tails
from dirnet_convert.finetune.precision import chosen_precision
from dirnet_convert.finetune.ranks import combined_score
from dirnet_convert.finetune.step import Compiled, StepFunction, TrainingStep
from dirnet_convert.finetune.teacher import with_folded_norms
from dirnet_convert.graph import counted_calls
from dirnet_convert.models.detectors import FeatureForward, loss_names
from dirnet_convert.modes import evaluating
from dirnet_convert.recipe import Precision, Task


class TrainTask(abc.ABC):
    """One job's task; ``part_names`` are its losses', ``score_names`` its scores' names, the one that counts
    first."""

    part_names: tuple[str, ...]
    score_names: tuple[str, ...]

    teacher: nn.Module | None
    """The teacher as the step runs it."""

    def __init__(self, job: TrainJob) -> None:
        self._job = job
        self.teacher = job.teacher_forward

    def renew_teacher(self) -> None:
        """Let the step's teacher have the statistics that ``job.teacher_forward`` has now."""
        original = self._job.teacher_forward
        if self.teacher is not original:
            # In place: a compiled step reads these very tensors.
            self.teacher.load_state_dict(with_folded_norms(original).state_dict())

    def _arithmetic(self, note: Callable[[str], None]) -> Callable[[nn.Module], nn.Module]:
        """Set what the student's layers are computed with; return what makes a step's network of a plain
        one."""
        job = self._job
        chosen = set_arithmetic(job.student, job.options.arithmetic, job.ranks.device, note)
        return with_norm_tails if chosen is Arithmetic.KERNELS else _unchanged

    @abc.abstractmethod
    def step(self, note: Callable[[str], None]) -> StepFunction:
        """Return what computes the loss of a batch and its parts."""

    @abc.abstractmethod
    def moved(self, labels: Any, device: torch.device) -> Any:
        """Return a batch's labels on ``device``."""

    @abc.abstractmethod
    def observed(self, student: nn.Module) -> nn.Module:
        """Return what shows ``student``'s binary layers their inputs, given images."""

    @abc.abstractmethod
    def scores(
        self, network: nn.Module, data: ImageSource, on_images: Callable[[int], None]
    ) -> dict[str, float]:
        """Measure ``network`` on the test images of ``data``; all processes must call this."""


class ClassificationTask(TrainTask):
    """Images and one label each; the score is top-1 accuracy."""

    part_names = PART_NAMES
    score_names = ("top1_percent",)

    def step(self, note: Callable[[str], None]) -> StepFunction:
        job = self._job
        objective = Objective(job.distill, job.options.label_smoothing)
        student = self._arithmetic(note)(job.student_forward)
        if job.teacher_forward is not None:
            self.teacher = with_folded_norms(job.teacher_forward)
        precision = chosen_precision(job.options.precision, job.ranks.device)
        if job.options.precision is Precision.AUTO:
            note(f"Convolutions are computed in {precision}.")
        step = TrainingStep(student, self.teacher, objective, precision)
        if job.options.compile:
            step.compile_computation(lambda losses: Compiled(losses, note))
        # Around the whole step, so that student and loss stay one compiled piece.
        return job.ranks.parallel(step, has_unused=self._has_unused())

    def _has_unused(self) -> bool:
        job, network = self._job, self._job.student_forward
        # Representations alone teach the head nothing.
        if job.distill.label_weight == job.distill.logit_weight == 0.0:
            return True
        # A graph holds what it calls; one process needs no answer.
        if job.ranks.count == 1 or isinstance(network, fx.GraphModule | FadingNetwork):
            return False
        image = job.data.calibration_images(1, job.seed).to(job.ranks.device)
        with counted_calls(network) as calls, evaluating(network), torch.no_grad():
            network(image)
        holders = (name for name, module in network.named_modules() if [*module.parameters(recurse=False)])
        return any(calls[name] == 0 for name in holders)

    def moved(self, labels: Tensor, device: torch.device) -> Tensor:
        return labels.to(device)

    def observed(self, student: nn.Module) -> nn.Module:
        return student

    def scores(
        self, network: nn.Module, data: ImageSource, on_images: Callable[[int], None]
    ) -> dict[str, float]:
        ranks = self._job.ranks
        part = data.test_share(ranks.shard) if ranks.count > 1 else data
        with module_predictor(network, str(ranks.device)) as predict:
            accuracy = evaluate(predict, part, self._job.options.batch_size, on_images=on_images)
        if ranks.count == 1:
            return {"top1_percent": accuracy.top1_percent}
        return {"top1_percent": combined_score(ranks, accuracy.images, accuracy.top1_percent)}


class DetectionTask(TrainTask):
    """Images and boxes; the detector's own losses, and mean average precision as the score."""

    score_names = ("map50_percent", "map_percent")

    def __init__(self, job: TrainJob) -> None:
        super().__init__(job)
        self.part_names = (*loss_names(job.student), "rbd_loss")

    def step(self, note: Callable[[str], None]) -> StepFunction:
        job = self._job
        set_region_samples(job.student, job.options.region_samples)
        prepared = self._arithmetic(note)
        # Boxes are matched and sorted by their values, which no compiler takes; the backbone is plain.
        job.student_forward.run_backbone_by(
            lambda backbone: Compiled(prepared(backbone), note) if job.options.compile else prepared(backbone)
        )
        # A box head without a region in a batch learns nothing from it.
        student = job.ranks.parallel(job.student_forward, has_unused=True)
        return DetectionStep(student, job.teacher_forward, job.distill, self.part_names[:-1])

    def moved(self, labels: list[Target], device: torch.device) -> list[Target]:
        return [{name: value.to(device) for name, value in target.items()} for target in labels]

    def observed(self, student: nn.Module) -> nn.Module:
        return FeatureForward(student)

    def scores(
        self, network: nn.Module, data: ImageSource, on_images: Callable[[int], None]
    ) -> dict[str, float]:
        # Precision is not a mean over images, so that the first process measures it alone.
        ranks, scores = self._job.ranks, {}
        if ranks.is_first:
            with module_predictor(network, str(ranks.device)) as predict:
                found = evaluate_detector(predict, data, self._job.options.batch_size, 0, on_images)
            scores = {"map50_percent": found.map50_percent, "map_percent": found.map_percent}
        return ranks.first(scores)


def task_of(job: TrainJob) -> TrainTask:
    """Return the task of ``job``'s data."""
    return DetectionTask(job) if job.data.info.task is Task.DETECTION else ClassificationTask(job)


def _unchanged(network: nn.Module) -> nn.Module:
    return network
