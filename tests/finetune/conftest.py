"""The tiny training of this folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

_NAME = "dirnet_tiny_training"


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The module tiny_training, which is a script as well."""
    path = Path(__file__).with_name("tiny_training.py")
    spec = importlib.util.spec_from_file_location(_NAME, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)
    return module
