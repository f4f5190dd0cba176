"""Where a training's numbers ran away: the first layer whose values are NaN or infinite."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dirnet_convert.binarize.estimators import Estimator
from dirnet_convert.errors import DirnetError


class DivergedError(DirnetError):
    """A training whose loss, gradient or weights are NaN or infinite."""


def gradient_norm(model: nn.Module) -> Tensor:
    """Return the L2 norm of all gradients of ``model`` as a scalar tensor: NaN or infinite where one is."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def broken_gradient(model: nn.Module) -> str:
    """Say which parameter's gradient is not finite; of several, the one that the backward pass met first."""
    names = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not _finite(parameter.grad)
    ]
    # Every gradient in front of the broken one is computed from it, so the last in the network was first.
    return (
        f"the gradient of '{names[-1]}' is not finite" if names else "the gradients are too large to add up"
    )


def broken_layer(
    step: Callable[[], object], images: Tensor, student: nn.Module, teacher: nn.Module | None
) -> str:
    """Run a step again, uncompiled, and say where its first NaN or infinity is, as the end of a sentence.

    ``student`` and ``teacher`` are the networks that ``step`` runs; their names are those of the layers.
    """
    if not _finite(images):
        return "first in the images"
    names = {module: f"'{name}'" for name, module in student.named_modules() if name}
    if teacher is not None:
        names |= {module: f"'{name}' of the teacher" for name, module in teacher.named_modules() if name}
    # An estimator is a part of its layer, not a layer.
    watched = {module: name for module, name in names.items() if not isinstance(module, Estimator)}
    with _watching(watched) as found, torch.compiler.set_stance("force_eager"), torch.no_grad():
        step()
    return found[0] if found else "first in the loss itself, as every layer's output is finite"


@contextlib.contextmanager
def _watching(names: dict[nn.Module, str]) -> Iterator[list[str]]:
    """Yield a list that gets a phrase for each module whose input or output is not finite, in their order."""
    found: list[str] = []

    def look(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not all(_finite(value) for value in _tensors(inputs)):
            found.append(f"first in what reaches layer {names[module]}")
        elif not all(_finite(value) for value in _tensors(output)):
            found.append(f"first in the output of layer {names[module]}")

    hooks = [module.register_forward_hook(look) for module in names]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())
