"""Overrides of single recipe values from the command line: ``finetune.lr=0.05``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from typing import Any

from dirnet_convert.errors import UsageError, nearest_name
from dirnet_convert.ranges import check_ranges
from dirnet_convert.recipe import Recipe, from_dict, to_dict


def apply_overrides(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """Return ``recipe`` with each ``section.key=value`` applied; the value is written as in TOML, or bare
    text.

    Raises:
        UsageError: no such key (with the nearest name), or a value of the wrong type or out of its range.
    """
    values = to_dict(recipe)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UsageError(f"--set {override}: write it as section.key=value, e.g. finetune.lr=0.05.")
        *path, last = key.strip().split(".")
        table: Any = values
        for part in path:
            table = _entry(table, part, override)
        _entry(table, last, override)
        if isinstance(table[last], dict):
            raise UsageError(
                f"--set {override}: '{key}' is a section; name one of {', '.join(table[last])} in it."
            )
        value = _parse(text.strip())
        # A text that looks like a number, such as a folder named 2024, stays a text.
        table[last] = text.strip() if isinstance(table[last], str) and not isinstance(value, str) else value
    changed = from_dict(Recipe, values, "--set")
    check_ranges(changed)
    return changed


def _entry(table: Any, name: str, override: str) -> Any:
    if not isinstance(table, dict) or name not in table:
        known = table if isinstance(table, dict) else {}
        raise UsageError(f"--set {override}: there is no '{name}'{nearest_name(name, known)}.")
    return table[name]


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
