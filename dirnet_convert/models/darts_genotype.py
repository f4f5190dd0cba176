"""Which operations a cell of DARTS consists of, as the search published it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Operation(enum.StrEnum):
    """What an edge of a cell does."""

    SKIP = "skip_connect"
    MAX_POOL_3X3 = "max_pool_3x3"
    SEPARABLE_3X3 = "sep_conv_3x3"
    DILATED_3X3 = "dil_conv_3x3"


@dataclass(frozen=True)
class Edge:
    """An operation and the state that it reads: 0 and 1 are the cell's inputs, 2 and on its own nodes."""

    operation: Operation
    source: int


@dataclass(frozen=True)
class CellPlan:
    """The nodes of a cell, each the sum of two edges, and the states whose concatenation is its output."""

    nodes: tuple[tuple[Edge, Edge], ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Genotype:
    """A cell that keeps the resolution and one that halves it."""

    normal: CellPlan
    reduction: CellPlan


_SKIP, _POOL = Operation.SKIP, Operation.MAX_POOL_3X3
_SEPARABLE, _DILATED = Operation.SEPARABLE_3X3, Operation.DILATED_3X3

# Source: Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, figures 4 and 5: the cells that
# the second-order search found on CIFAR-10, in the order of the authors' listing (DARTS_V2).
SECOND_ORDER = Genotype(
    normal=CellPlan(
        nodes=(
            (Edge(_SEPARABLE, 0), Edge(_SEPARABLE, 1)),
            (Edge(_SEPARABLE, 0), Edge(_SEPARABLE, 1)),
            (Edge(_SEPARABLE, 1), Edge(_SKIP, 0)),
            (Edge(_SKIP, 0), Edge(_DILATED, 2)),
        ),
        outputs=(2, 3, 4, 5),
    ),
    reduction=CellPlan(
        nodes=(
            (Edge(_POOL, 0), Edge(_POOL, 1)),
            (Edge(_SKIP, 2), Edge(_POOL, 1)),
            (Edge(_POOL, 0), Edge(_SKIP, 2)),
            (Edge(_SKIP, 2), Edge(_POOL, 1)),
        ),
        outputs=(2, 3, 4, 5),
    ),
)
