"""Representations by name: the outputs of chosen modules, in the teacher and in the student alike."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Sequence

from torch import fx, nn

from dirnet_convert.convert.binarize_network import Binarized
from dirnet_convert.convert.originals import original_of
from dirnet_convert.convert.structure import Representation
from dirnet_convert.convert.trace import shape_of, with_outputs
from dirnet_convert.errors import UsageError

_SHOWN = 4


def with_representations(network: Binarized, globs: Sequence[str]) -> Binarized:
    """Return ``network`` with the outputs of the modules that ``globs`` name as its representations.

    Raises:
        UsageError: the network has no graph, or a glob names nothing that teacher and student share.
    """
    teacher, student = network.teacher, network.student
    if not isinstance(teacher, fx.GraphModule) or not isinstance(student, fx.GraphModule):
        raise UsageError(
            "distill.representations needs a network that can be traced, and this one cannot "
            f"({network.trace_failure}); leave it empty."
        )
    shared = _shared_outputs(teacher, student)
    chosen: dict[Representation, None] = {}
    for glob in globs:
        names = fnmatch.filter(shared, glob)
        if not names:
            some = ", ".join(f"'{name}'" for name in list(shared)[:_SHOWN])
            rest = f" and {len(shared) - _SHOWN} more" if len(shared) > _SHOWN else ""
            raise UsageError(
                f"distill.representations: '{glob}' names no module of both the network and its teacher; "
                f"there are {some}{rest}."
            )
        chosen |= dict.fromkeys(shared[name] for name in names)
    pairs = tuple(chosen)
    return dataclasses.replace(
        network,
        student_forward=with_outputs(student, [pair.student for pair in pairs]),
        teacher_forward=with_outputs(teacher, [pair.teacher for pair in pairs]),
        structure=dataclasses.replace(network.structure, representations=pairs),
    )


def _shared_outputs(teacher: fx.GraphModule, student: fx.GraphModule) -> dict[str, Representation]:
    """Return, by the name of each module of the teacher, what it gives last and the student's twin of it."""
    # Nodes keep their names in the student, but for activations that were replaced.
    twins = {node.name: node.name for node in student.graph.nodes}
    for node in student.graph.nodes:
        if node.op == "call_module" and isinstance(original_of(node), nn.Module):
            # A module that took the place of a node is named for it.
            twins[str(node.target).rpartition(".")[2]] = node.name
    found: dict[str, Representation] = {}
    for node in teacher.graph.nodes:
        if node.name not in twins or len(shape_of(node) or ()) < 2:
            continue
        for key in node.meta.get("nn_module_stack", {}):
            # A module's second call is numbered behind its name.
            found[key.partition("@")[0]] = Representation(node.name, twins[node.name])
    return found
