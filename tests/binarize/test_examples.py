"""The examples in the docstrings are true."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "binarize.activations",
    "binarize.dte",
    "binarize.ede",
    "binarize.estimators",
    "binarize.imb",
    "binarize.padding",
    "binarize.sign",
    "data.timed",
    "finetune.losses",
    "finetune.rbd",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"dirnet_convert.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
