"""PyTorch's table of translations to ONNX, made once for a process instead of at every export.

torch.onnx.export reads the sources of some 500 functions to make it, which took one to two seconds on a
server's core.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

# The table holds torchvision's operators, such as a detector's, only if they are there when it is made.
import torchvision.ops  # noqa: F401

try:
    # PyTorch's own, and the only place where the table is made. Without it exports take longer, no more.
    from torch.onnx._internal.exporter._registration import ONNXRegistry
except ImportError:
    ONNXRegistry = None

_MAKER = "from_torchlib"
_MADE_ANEW = inspect.getattr_static(ONNXRegistry, _MAKER, None)


@functools.cache
def translations(opset: int) -> Any | None:
    """Return the table for ``opset``, or None where this PyTorch makes none that could be shared.

    Operators that are registered later are not in it: those of PyTorch's quantizers, which come with the
    first compiled network and stand in no network that is converted.
    """
    if not isinstance(_MADE_ANEW, classmethod):
        return None
    return _MADE_ANEW.__get__(None, ONNXRegistry)(opset_version=opset)


@contextlib.contextmanager
def shared_translations(opset: int) -> Iterator[None]:
    """Let the exports for ``opset`` inside take one table, to which they must not add."""
    table = translations(opset)
    if table is None:
        yield
        return
    setattr(ONNXRegistry, _MAKER, staticmethod(lambda *_, **__: table))
    try:
        yield
    finally:
        # Not what was there before: that of a thread beside this one, which would then stay.
        setattr(ONNXRegistry, _MAKER, _MADE_ANEW)
