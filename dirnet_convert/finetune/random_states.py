"""The random number generators that a training draws from, taken and put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomStates:
    """States of torch's generators: the processor's, and that of each accelerator in use."""

    cpu: Tensor
    cuda: list[Tensor]

    def to_plain(self) -> dict[str, Any]:
        """Return the states as plain values of tensors."""
        return {"cpu": self.cpu, "cuda": self.cuda}


def take_random_states(device: torch.device) -> RandomStates:
    """Return the present states of the generators that a training on ``device`` draws from."""
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return RandomStates(torch.get_rng_state(), cuda)


def put_random_states(states: RandomStates, device: torch.device) -> None:
    """Go on drawing from ``states``; one of an accelerator is left out where the training now has none."""
    torch.set_rng_state(states.cpu)
    if device.type == "cuda" and len(states.cuda) == 1:
        torch.cuda.set_rng_state(states.cuda[0], device)
