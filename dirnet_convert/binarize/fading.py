"""A network that begins as the pretrained one, although shortcuts and activations were changed around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def scheduled_blend(fraction: float, share: float) -> float:
    """Return how far something that fades over the first ``share`` of a training is after ``fraction`` of it,
    both in [0, 1]: 0 at the beginning, 1 at its end and from then on, and always where ``share`` is 0.

    >>> scheduled_blend(0.125, 0.5), scheduled_blend(0.5, 0.25), scheduled_blend(0.0, 0.0)
    (0.25, 1.0, 1.0)
    """
    return min(1.0, fraction / share) if share > 0.0 else 1.0


class Fade(nn.Module):
    """(1 - blend) * before + blend * after, of two tensors of one shape.

    >>> fade = Fade()
    >>> fade.blend.fill_(0.25)
    tensor(0.2500)
    >>> fade(torch.tensor([4.0]), torch.tensor([8.0]))
    tensor([5.])
    """

    blend: Tensor

    def __init__(self) -> None:
        super().__init__()
        # The position in the training says it, so that no file has to.
        self.register_buffer("blend", torch.zeros(()), persistent=False)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        # Not lerp(), which refuses tensors of two precisions, as under autocast.
        return before + self.blend * (after - before)


class FadingNetwork(nn.Module):
    """``during`` while it fades and ``after`` from then on: one network's parameters, called in two ways.

    ``during`` holds ``Fade`` modules between what the pretrained network computed and what takes its place.
    """

    fades: bool
    """No tensor, so that a compiled step leaves out what has ended."""

    def __init__(self, during: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.during, self.after = during, after
        self.set_blend(0.0)

    def set_blend(self, blend: float) -> None:
        """Set the share, in [0, 1], of what takes the pretrained network's place."""
        self.fades = blend < 1.0
        if self.fades:
            for module in self.during.modules():
                if isinstance(module, Fade):
                    module.blend.fill_(blend)

    def change(self, changed: Callable[[nn.Module], nn.Module]) -> None:
        """Put what ``changed`` makes of them, with the same parameters, in place of both ways."""
        self.during, self.after = changed(self.during), changed(self.after)

    def forward(self, x: Tensor) -> Any:
        """Return what the networks return for images (N, C, H, W)."""
        return self.during(x) if self.fades else self.after(x)
