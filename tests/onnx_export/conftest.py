"""Each small network is exported once, since tracing is most of the time."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from dirnet_convert.onnx_export.exporter import binary_model

# Tests are imported one by one; what they share in this folder has to be found by name.
sys.path.insert(0, str(Path(__file__).parent))

from export_networks import build, images


@pytest.fixture(scope="session")
def exported() -> Callable[[str], onnx.ModelProto]:
    """Return the exported model of a network by name; a test that changes it works on a copy."""
    return functools.cache(lambda name: binary_model(build(name), images(name)[:1])[0])
