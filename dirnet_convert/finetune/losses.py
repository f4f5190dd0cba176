"""What training minimizes: labels, the teacher's logits and the teacher's representations, weighed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.loss import LabelSmoothingCrossEntropy
from torch import Tensor
from torch.nn import functional

from dirnet_convert.finetune.rbd import rbd_loss
from dirnet_convert.recipe import DistillOptions

PART_NAMES = ("label_loss", "logit_loss", "rbd_loss")


def logit_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 * KL(softmax(teacher / T) || softmax(student / T)), averaged over the batch (N, classes).

    Source: Hinton et al., 2015, "Distilling the Knowledge in a Neural Network"; T^2 keeps the size
    of the gradient. With T = 1 its gradient equals that of ReActNet's distributional loss (public code).

    >>> logit_loss(torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 2.0]]), 4.0)
    tensor(0.)
    """
    ours = functional.log_softmax(student / temperature, dim=1)
    theirs = functional.log_softmax(teacher / temperature, dim=1)
    divergence = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    return temperature * temperature * divergence


@dataclass(frozen=True)
class Loss:
    """The loss that is minimized, and its parts before they are weighed (3,), in the order of PART_NAMES."""

    total: Tensor
    parts: Tensor


class Objective:
    """label_weight * CE + logit_weight * KL + rbd_weight * RBD; a part of weight 0 is not computed.

    Source: DIR-Net's abstract adds distilled representations to the classification loss; the weights are
    options since the paper's were not at hand.
    """

    def __init__(self, distill: DistillOptions, label_smoothing: float) -> None:
        self.distill = distill
        self.cross_entropy = LabelSmoothingCrossEntropy(label_smoothing)

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher has to run."""
        return self.distill.logit_weight != 0.0 or self.distill.rbd_weight != 0.0

    def __call__(
        self,
        labels: Tensor,
        logits: Tensor,
        representations: Sequence[Tensor] = (),
        teacher_logits: Tensor | None = None,
        teacher_representations: Sequence[Tensor] = (),
    ) -> Loss:
        """Return the loss of one batch.

        Raises:
            DirnetError: representations are to be compared and do not match.
        """
        distill = self.distill
        label = logit = rbd = logits.new_zeros(())
        if distill.label_weight != 0.0:
            label = self.cross_entropy(logits, labels)
        if distill.logit_weight != 0.0 and teacher_logits is not None:
            logit = logit_loss(logits, teacher_logits, distill.temperature)
        if distill.rbd_weight != 0.0 and teacher_logits is not None:
            rbd = rbd_loss(representations, teacher_representations, distill.attention, distill.distance)
        total = logits.new_zeros(())
        weights = (distill.label_weight, distill.logit_weight, distill.rbd_weight)
        for weight, part in zip(weights, (label, logit, rbd), strict=True):
            if weight != 0.0:
                total = total + weight * part
        return Loss(total, torch.stack([label, logit, rbd]).detach())
