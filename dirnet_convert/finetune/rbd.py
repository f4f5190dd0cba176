"""Distillation of representations (RBD): where the student looks, compared with where its teacher looks.

RECONSTRUCTION. The DIR-Net abstract says that representations are distilled from the full-precision network;
its formula and weight were not at hand. The attention maps here are those of Zagoruyko and Komodakis (ICLR
2017, "Paying More Attention to Attention"); Real-to-Binary (Martinez et al., ICLR 2020)
uses such maps as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from dirnet_convert.errors import DirnetError


def attention_map(representation: Tensor) -> Tensor:
    """Return the attention map of (N, C, H, W) as (N, H*W) of length 1; for (N, C) the squares themselves.

    Source: Zagoruyko and Komodakis, ICLR 2017, the sum of squares over channels, flattened and divided by its
    L2 norm.

    >>> attention_map(torch.tensor([[[[3.0, 0.0]], [[0.0, 2.0]]]])).round(decimals=4)
    tensor([[0.9138, 0.4061]])
    """
    # A(F) = sum over c of F_c^2;  a = vec(A) / ||vec(A)||_2
    energy = representation.square()
    if energy.dim() > 2:
        energy = energy.sum(dim=1)
    return functional.normalize(energy.flatten(1), dim=1)


def rbd_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Return the sum over the pairs of the distance between their attention maps, averaged over the batch.

    Its gradient in a map is the unit vector from the teacher's map to the student's, and 0 where they agree.

    Source: reconstruction (see the module): L_RBD = sum over l of ||a_l^S - a_l^T||_2.

    Raises:
        DirnetError: the lists are empty or differ in length, or a pair differs in height or width.

    >>> maps = [torch.ones(1, 2, 4, 4)]
    >>> rbd_loss(maps, maps)
    tensor(0.)
    """
    if not student or len(student) != len(teacher):
        raise DirnetError(
            f"This network gives {len(student)} representations and its teacher {len(teacher)}, so they "
            "cannot be compared; train without with --set distill.rbd_weight=0."
        )
    total = student[0].new_zeros(())
    for ours, theirs in zip(student, teacher, strict=True):
        if ours.shape[2:] != theirs.shape[2:]:
            raise DirnetError(
                f"A representation of the network has shape {tuple(ours.shape)} and the teacher's "
                f"{tuple(theirs.shape)}; train without with --set distill.rbd_weight=0."
            )
        difference = attention_map(ours) - attention_map(theirs)
        total = total + torch.linalg.vector_norm(difference, dim=1).mean()
    return total
