"""Ctrl-C during a training: the step is finished and a checkpoint written before the program stops."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from dirnet_convert.errors import DirnetError


class StoppedError(DirnetError):
    """A training that was asked to stop and can go on; the command line exits with 130."""

    exit_code = 130


class InterruptFlag:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.is_set = False


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[InterruptFlag]:
    """Yield a flag that the first Ctrl-C sets; the second one interrupts at once.

    Outside the main thread Ctrl-C cannot be heard, and the flag stays unset.
    """
    flag = InterruptFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def hear(number: int, frame: FrameType | None) -> None:
        if flag.is_set:
            raise KeyboardInterrupt
        flag.is_set = True

    before = signal.signal(signal.SIGINT, hear)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)
