"""The work of one step of a detector: its own losses, and its backbone compared with its teacher's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dirnet_convert.data.boxes import Target, without_excused
from dirnet_convert.finetune.rbd import rbd_loss
from dirnet_convert.finetune.strided_pointwise import gather_before_pointwise
from dirnet_convert.recipe import DistillOptions


class DetectionStep(nn.Module):
    """Images (N, 3, S, S) and targets in; the loss and its parts out, in the order of ``names``, RBD last.

    The loss is label_weight * (sum of the detector's losses) + rbd_weight * RBD over the representations of
    the backbone. ``student`` returns (losses by name, representations); ``teacher``, a backbone alone,
    (feature maps, representations).
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module | None, distill: DistillOptions, names: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.student = student
        gather_before_pointwise(student)
        self.teacher = teacher if distill.rbd_weight != 0.0 else None
        self.distill = distill
        self.names = names

    def forward(self, images: Tensor, targets: list[Target]) -> tuple[Tensor, Tensor]:
        losses, representations = self.student(images, [without_excused(target) for target in targets])
        parts = [losses[name] for name in self.names]
        total = self.distill.label_weight * torch.stack(parts).sum()
        rbd = total.new_zeros(())
        if self.teacher is not None:
            with torch.no_grad():
                _, others = self.teacher(images)
            rbd = rbd_loss(representations, others, self.distill.attention, self.distill.distance)
            total = total + self.distill.rbd_weight * rbd
        return total, torch.stack([*parts, rbd]).detach()


def set_region_samples(detector: nn.Module, count: int) -> None:
    """Let the box head of a Faster R-CNN learn from ``count`` regions of an image; 0 leaves it as it is."""
    if count:
        detector.roi_heads.fg_bg_sampler.batch_size_per_image = count
