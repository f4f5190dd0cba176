"""The verbs of the command line as Python functions."""

from __future__ import annotations

from dirnet_convert.runtime.session import load_session

__all__ = ["convert", "load_session"]
