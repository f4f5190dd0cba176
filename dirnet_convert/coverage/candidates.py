"""The networks that are tried: torchvision's whole list, and the smallest member of each timm family."""

from __future__ import annotations

import enum
from collections import defaultdict
from dataclasses import dataclass

import timm
import torch
from torchvision.models import get_model_builder

from dirnet_convert.models.catalog import torchvision_names

# timm has tiny networks for its own tests, which nobody would convert.
_TOY = "test_"


class Library(enum.StrEnum):
    """Whose networks are tried."""

    TORCHVISION = "torchvision"
    TIMM = "timm"
    ALL = "all"


@dataclass(frozen=True)
class Candidate:
    """A network of a library, named as a MODEL, and the family (the library's file) that it is of."""

    model: str
    library: Library
    family: str


def candidates(library: Library) -> tuple[Candidate, ...]:
    """Return the networks of ``library`` in the order of their names."""
    found: list[Candidate] = []
    if library is not Library.TIMM:
        found += [
            Candidate(name, Library.TORCHVISION, get_model_builder(name).__module__.rpartition(".")[2])
            for name in torchvision_names()
        ]
    if library is not Library.TORCHVISION:
        found += [
            Candidate(f"timm:{_smallest(members)}", Library.TIMM, family)
            for family, members in sorted(timm_families().items())
        ]
    return tuple(found)


def timm_families() -> dict[str, list[str]]:
    """Return the networks of each of timm's model files, without those made for timm's own tests."""
    families: dict[str, list[str]] = defaultdict(list)
    for name in timm.list_models():
        if not name.startswith(_TOY):
            families[timm.models.model_entrypoint(name).__module__.rpartition(".")[2]].append(name)
    return families


def _smallest(members: list[str]) -> str:
    """Return the member with the fewest parameters, the first by name among equals."""
    if len(members) == 1:
        return members[0]
    return min(members, key=lambda name: (_parameters(name), name))


def _parameters(name: str) -> int:
    # On the meta device no weight takes memory, so that the largest network costs no more than the smallest.
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in timm.create_model(name).parameters())
