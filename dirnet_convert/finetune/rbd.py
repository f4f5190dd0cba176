"""Distillation of representations (RBD): where the student looks, or what it sees there, compared with its
teacher.

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
from dirnet_convert.recipe import Attention, Distance

# What a map of zeros alone is divided by.
_LEAST = 1e-12


def attention_map(representation: Tensor, form: Attention = Attention.SUM_SQUARES) -> Tensor:
    """Return the attention map of (N, C, H, W) as (N, H*W); of (N, C) channels stand for places.

    SUM_SQUARES and MEAN_ABS give maps of length 1, MAX_NORMALIZED ones whose largest value is 1. CHANNELS
    leaves the channels apart: all values with their signs, as (N, C*H*W) of length 1.

    Source: Zagoruyko and Komodakis, ICLR 2017: squares, or magnitudes, added up over channels and divided by
    their L2 norm; the division by the maximum is that of a public re-implementation of Real-to-Binary.
    CHANNELS is ours: a channel of the student began as the same channel of its teacher.

    >>> attention_map(torch.tensor([[[[3.0, 0.0]], [[0.0, 2.0]]]])).round(decimals=4)
    tensor([[0.9138, 0.4061]])
    """
    if form is Attention.CHANNELS:
        return functional.normalize(representation.flatten(1), dim=1)
    # A(F) = sum over c of F_c^2, or mean over c of |F_c|;  a = vec(A) / ||vec(A)||_2, or vec(A) / max(A)
    energy = representation.abs() if form is Attention.MEAN_ABS else representation.square()
    if energy.dim() > 2:
        energy = energy.sum(dim=1) if form is Attention.SUM_SQUARES else energy.mean(dim=1)
    flat = energy.flatten(1)
    if form is Attention.MAX_NORMALIZED:
        return flat / flat.amax(dim=1, keepdim=True).clamp(min=_LEAST)
    return functional.normalize(flat, dim=1)


def map_distance(ours: Tensor, theirs: Tensor, distance: Distance) -> Tensor:
    """Return the distance between maps (N, P), averaged over the batch, as a scalar.

    L2 has the unit vector from the teacher's map to the student's as its gradient, whatever their distance;
    MEAN_SQUARE and COSINE (1 - cosine of the angle) fade with it.
    """
    if distance is Distance.L2:
        return torch.linalg.vector_norm(ours - theirs, dim=1).mean()
    if distance is Distance.MEAN_SQUARE:
        return functional.mse_loss(ours, theirs)
    return (1.0 - functional.cosine_similarity(ours, theirs, dim=1)).mean()


def rbd_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    attention: Attention = Attention.SUM_SQUARES,
    distance: Distance = Distance.L2,
) -> Tensor:
    """Return the sum over the pairs of the distance between their attention maps, averaged over the batch.

    Source: reconstruction (see the module): L_RBD = sum over l of ||a_l^S - a_l^T||_2, or another distance.

    Raises:
        DirnetError: the lists are empty or differ in length, or a pair differs in height or width, or in
            channels where these are compared.

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
        if attention is Attention.CHANNELS and ours.shape[1] != theirs.shape[1]:
            raise DirnetError(
                f"A representation of the network has {ours.shape[1]} channels and the teacher's "
                f"{theirs.shape[1]}; compare them without, with --set distill.attention=sum_squares."
            )
        ours, theirs = attention_map(ours, attention), attention_map(theirs, attention)
        total = total + map_distance(ours, theirs, distance)
    return total
