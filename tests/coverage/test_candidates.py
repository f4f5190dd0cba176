"""The lists: nothing of torchvision's is left out, and a small network stands for each of timm's families."""

from __future__ import annotations

import pytest
import timm
import torchvision

from dirnet_convert.coverage import candidates as module
from dirnet_convert.coverage.candidates import Library, candidates, timm_families


def test_every_classifier_of_torchvision_is_listed() -> None:
    listed = candidates(Library.TORCHVISION)
    assert [c.model for c in listed] == torchvision.models.list_models(module=torchvision.models)
    assert {c.family for c in listed if c.model.startswith("resn")} == {"resnet"}


def test_every_network_of_timm_is_in_a_family() -> None:
    families = timm_families()
    members = [name for names in families.values() for name in names]
    assert sorted(members) == sorted(n for n in timm.list_models() if not n.startswith("test_"))
    assert set(families["dpn"]) >= {"dpn48b", "dpn131"}


def test_the_smallest_stands_for_its_family(monkeypatch: pytest.MonkeyPatch) -> None:
    families = {name: timm_families()[name] for name in ("dpn", "xception")}
    monkeypatch.setattr(module, "timm_families", lambda: families)
    assert [(c.model, c.family) for c in candidates(Library.TIMM)] == [
        ("timm:dpn48b", "dpn"),
        ("timm:legacy_xception", "xception"),
    ]
