"""Builds the binarized network from a pretrained one: trace, plan, swap, restructure."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from dirnet_convert.convert.normal_form import (
    dropouts_as_modules,
    inputs_by_place,
    remove_overwriting,
    split_norms,
)
from dirnet_convert.convert.policy import Decision, LayerPlan, plan_layers
from dirnet_convert.convert.rewrite import swap_layers
from dirnet_convert.convert.structure import Representation, StructureReport, restructure
from dirnet_convert.convert.trace import (
    TraceFailure,
    count_calls,
    opaque_modules,
    propagate_shapes,
    serves,
    trace,
    with_outputs,
)
from dirnet_convert.convert.tracer import REJECTIONS, cause_of
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.modes import evaluating
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions


@dataclass(frozen=True)
class Binarized:
    """A binarized network, its teacher, and what was decided.

    ``student`` and ``teacher`` map images (N, C, H, W) to logits. ``student_forward`` and ``teacher_forward``
    share their parameters and return (logits, representations). ``trace_failure`` is empty where the network
    has a graph; ``untraced_modules`` are those that are one node of it, with the cause.
    """

    student: nn.Module
    teacher: nn.Module
    student_forward: nn.Module
    teacher_forward: nn.Module
    plan: tuple[LayerPlan, ...]
    structure: StructureReport
    trace_failure: str
    untraced_modules: dict[str, str]


class _WithoutRepresentations(nn.Module):
    """Returns (logits, ()) for a network that has no graph to take representations from."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Map images (N, C, H, W) to (logits, ())."""
        return self.network(x), ()


def plan_network(
    network: nn.Module, image: Tensor, options: ConvertOptions
) -> tuple[tuple[LayerPlan, ...], fx.GraphModule | TraceFailure]:
    """Decide for each layer of ``network``, tracing it with an image (1, C, H, W).

    Raises:
        DirnetError: the network does not take such an image.
    """
    calls = count_calls(network, image)
    graph = trace(network, image)
    if isinstance(graph, fx.GraphModule):
        inputs_by_place(graph)
        split_norms(graph)
        dropouts_as_modules(graph)
        propagate_shapes(graph, image)
        remove_overwriting(graph)
        # What was written through a view has other readers than those of the view.
        if not serves(graph, network, image):
            graph = TraceFailure("it overwrites values that it reads elsewhere")
    return plan_layers(network, graph if isinstance(graph, fx.GraphModule) else None, options, calls), graph


def binarize_network(
    network: nn.Module,
    image: Tensor,
    options: ConvertOptions,
    estimator: EstimatorOptions,
    binarized: tuple[str, ...] | None = None,
) -> Binarized:
    """Binarize a copy of ``network``; ``binarized`` names the layers where an earlier plan decided.

    Raises:
        UsageError: nothing can be binarized.
        DirnetError: the network does not take an image (1, C, H, W) of this shape, or does not have those
            layers.
    """
    plan, graph = plan_network(network, image, options)
    chosen = (
        binarized if binarized is not None else tuple(p.name for p in plan if p.decision is Decision.BINARIZE)
    )
    if not chosen:
        reasons = sorted({p.reason for p in plan}) or ["it has no convolution"]
        raise UsageError(
            f"Nothing to binarize in this network: {'; '.join(reasons)}. --binarize GLOB overrides."
        )
    if isinstance(graph, TraceFailure):
        return _binarize_tree(network, image, chosen, options, estimator, plan, graph.cause)
    student = copy.deepcopy(graph)
    swap_layers(student, chosen, options, estimator)
    with _runs_with_binary_layers():
        propagate_shapes(student, image)
    structure = restructure(student, options)
    return Binarized(
        student=student,
        teacher=graph,
        student_forward=with_outputs(student, [r.student for r in structure.representations]),
        teacher_forward=with_outputs(graph, [r.teacher for r in structure.representations]),
        plan=plan,
        structure=structure,
        trace_failure="",
        untraced_modules=opaque_modules(graph),
    )


@contextlib.contextmanager
def _runs_with_binary_layers() -> Iterator[None]:
    """Tell of code that asks more of a layer than to be called: only a graph shows all that it asks."""
    try:
        yield
    except REJECTIONS as error:
        raise DirnetError(
            f"The network does not run with binary layers ({cause_of(error)}); --keep those whose insides "
            "its forward() reads."
        ) from error


def _binarize_tree(
    network: nn.Module,
    image: Tensor,
    chosen: tuple[str, ...],
    options: ConvertOptions,
    estimator: EstimatorOptions,
    plan: tuple[LayerPlan, ...],
    cause: str,
) -> Binarized:
    student = copy.deepcopy(network)
    swap_layers(student, chosen, options, estimator)
    with _runs_with_binary_layers(), evaluating(student), torch.no_grad():
        student(image)
    none: tuple[Representation, ...] = ()
    return Binarized(
        student=student,
        teacher=network,
        student_forward=_WithoutRepresentations(student),
        teacher_forward=_WithoutRepresentations(network),
        plan=plan,
        structure=StructureReport((), (), (), none),
        trace_failure=cause,
        untraced_modules={},
    )
