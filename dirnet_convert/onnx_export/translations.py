"""PyTorch's table of translations to ONNX, made once for a process instead of at every export.

torch.onnx.export reads the sources of some 500 functions to make it, which took one to two seconds here: as long
as all the rest for a small network.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

try:
    # PyTorch's own, and the only place where the table is made. Without it exports take longer, no more.
    from torch.onnx._internal.exporter._registration import ONNXRegistry
except ImportError:
    ONNXRegistry = None

_MAKER = "from_torchlib"


@functools.cache
def translations(opset: int) -> Any | None:
    """Return the table for ``opset``, or None where this PyTorch makes none that could be shared."""
    make = getattr(ONNXRegistry, _MAKER, None)
    return None if make is None else make(opset_version=opset)


@contextlib.contextmanager
def shared_translations(opset: int) -> Iterator[None]:
    """Let the exports for ``opset`` inside take one table, to which they must not add."""
    table = translations(opset)
    if table is None:
        yield
        return
    made_anew = inspect.getattr_static(ONNXRegistry, _MAKER)
    setattr(ONNXRegistry, _MAKER, staticmethod(lambda *_, **__: table))
    try:
        yield
    finally:
        setattr(ONNXRegistry, _MAKER, made_anew)
