"""The work of one step, as one module: so that student, teacher and loss compile into one piece."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.exc import CppCompileError

from dirnet_convert.finetune.losses import Objective
from dirnet_convert.finetune.strided_pointwise import gather_before_pointwise
from dirnet_convert.recipe import Precision

StepFunction = Callable[[Tensor, Any], tuple[Tensor, Tensor]]


def _is_news(record: logging.LogRecord) -> bool:
    return "No CUDA runtime is found" not in record.getMessage()


class TrainingStep(nn.Module):
    """Images (N, C, H, W) and labels (N,) in, the loss and its parts (3,) out.

    ``student`` returns logits, or logits and representations; so does ``teacher``, which runs without
    gradient (no_grad rather than inference_mode, whose tensors the loss could not keep for its backward
    pass).
    """

    compute: StepFunction
    """What forward calls: the computation as it is, or what compile_computation made of it."""

    def __init__(
        self, student: nn.Module, teacher: nn.Module | None, objective: Objective, precision: Precision
    ) -> None:
        super().__init__()
        self.half = precision is Precision.BFLOAT16
        self.student = student
        gather_before_pointwise(student)
        self.teacher = teacher if objective.needs_teacher else None
        self.objective = objective
        self.compute = self._losses

    def compile_computation(self, compiled: Callable[[StepFunction], StepFunction]) -> None:
        """Run the step by what ``compiled`` makes of it; wrappers around the module stay outside of that."""
        self.compute = compiled(self._losses)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.compute(images, labels)

    def _losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.half):
            logits, representations = _split(self.student(images))
            teacher_logits, teacher_representations = None, ()
            if self.teacher is not None:
                with torch.no_grad():
                    teacher_logits, teacher_representations = _split(self.teacher(images))
        loss = self.objective(labels, logits, representations, teacher_logits, teacher_representations)
        return loss.total, loss.parts


def _split(output: Tensor | tuple[Tensor, tuple[Tensor, ...]]) -> tuple[Tensor, tuple[Tensor, ...]]:
    logits, representations = (output, ()) if isinstance(output, Tensor) else output
    # Losses are sums over many values: float32, whatever the network computed in.
    return logits.float(), tuple(value.float() for value in representations)


class Compiled:
    """A module or function compiled at its first call, and again where its course changes; or run as it is
    where this machine or network cannot be."""

    def __init__(self, function: Callable[..., Any], note: Callable[[str], None]) -> None:
        self._function = function
        self._compiled: Callable[..., Any] | None = None
        self._note = note
        if has_compiler():
            # PyTorch logs it where CUDA's tools are and no accelerator is, which is as good a place to train.
            logging.getLogger("torch.utils.cpp_extension").addFilter(_is_news)
            self._compiled = torch.compile(function, dynamic=False)
            note("The training step is compiled first, which takes a minute or two.")
        else:
            note("No C++ compiler was found, so training is not compiled; it takes about twice the time.")

    def __call__(self, *inputs: Tensor) -> Any:
        if self._compiled is None:
            return self._function(*inputs)
        try:
            return self._compiled(*inputs)
        except (TorchDynamoException, CppCompileError) as error:
            cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._note(f"This network cannot be compiled here ({cause}); training goes on without.")
            self._compiled = None
            return self._function(*inputs)


def has_compiler() -> bool:
    """Whether a C++ compiler, which torch.compile needs, is on the path (or named by CXX)."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name)
