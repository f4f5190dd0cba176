"""Keeps other packages' logs from the person's terminal."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def errors_alone(logger_name: str | None) -> Iterator[None]:
    """Have the logger of this name (None: the root) log errors and nothing else while this lasts."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
