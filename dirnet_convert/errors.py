"""Errors that a person sees: one sentence that says what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DirnetError(Exception):
    """A failure with a sentence for the person at the keyboard; the command line exits with 1."""

    exit_code = 1


class UsageError(DirnetError):
    """A wrong argument, name or file; the command line exits with 2."""

    exit_code = 2


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the known name closest to ``name``, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{match[0]}'?)" if match else ""


def few(names: list[str], limit: int = 4) -> str:
    """Return the first names in a row, and how many more there are."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
