"""One trial in a process of its own, so that a crash, a hang or too much memory ends nothing else."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from dirnet_convert.coverage.candidates import Candidate
from dirnet_convert.coverage.trial import Outcome, Stage, TrialResult, seed_of, try_network

_GIGABYTE = 1 << 30
_PRELOADED = (try_network.__module__, "dirnet_convert.coverage.preload")


@dataclass(frozen=True)
class Limits:
    """What one network may take."""

    seconds: float = 900.0
    memory_gb: float = 20.0


DEFAULT_LIMITS = Limits()


class RunningTrial:
    """A trial that was started, and what it has said so far."""

    def __init__(self, candidate: Candidate, limits: Limits) -> None:
        self.candidate = candidate
        self._limits = limits
        self._stage = Stage.BUILD
        self._start = time.perf_counter()
        context = multiprocessing.get_context(_start_method())
        if _start_method() == "forkserver":
            context.set_forkserver_preload(list(_PRELOADED))
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_work, args=(candidate.model, limits.memory_gb, sender), daemon=True
        )
        self._process.start()
        sender.close()

    @property
    def connection(self) -> Connection:
        """What becomes readable when the trial has something to say."""
        return self._receiver

    def poll(self) -> TrialResult | None:
        """Return the result once there is one; a trial over its time is ended."""
        while self._receiver.poll():
            try:
                message = self._receiver.recv()
            except EOFError:
                return self._died()
            if isinstance(message, TrialResult):
                self._process.join()
                return message
            self._stage = message
        if time.perf_counter() - self._start > self._limits.seconds:
            self.stop()
            return self._failed(f"not done after {self._limits.seconds:.0f} s")
        return None

    def stop(self) -> None:
        """End the trial without a result."""
        self._process.kill()
        self._process.join()

    def _died(self) -> TrialResult:
        self._process.join()
        code = self._process.exitcode or 0
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return self._failed(f"the process ended with {cause}")

    def _failed(self, reason: str) -> TrialResult:
        return TrialResult(
            model=self.candidate.model,
            outcome=Outcome.FAILED,
            seed=seed_of(self.candidate.model),
            seconds=round(time.perf_counter() - self._start, 1),
            stage=self._stage,
            reason=reason,
        )


def wait_for(running: list[RunningTrial], seconds: float) -> None:
    """Return when one of ``running`` says something, at the latest after ``seconds``."""
    wait([trial.connection for trial in running], timeout=seconds)


def _start_method() -> str:
    # A fork server imports PyTorch once; where there is none, every trial does.
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def _work(model: str, memory_gb: float, sender: Connection) -> None:
    import torch

    # Ctrl-C reaches the whole group of processes; the parent is the one to answer it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit_memory(memory_gb)
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere:
        # What compiled code prints, too.
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere.fileno(), stream.fileno())
    with contextlib.closing(sender):
        sender.send(try_network(model, sender.send))


def _limit_memory(gigabytes: float) -> None:
    if sys.platform == "win32":
        return
    import resource

    # Memory of its own; mapped files, such as PyTorch's libraries, do not count.
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = int(gigabytes * _GIGABYTE)
    allowed = limit if most == resource.RLIM_INFINITY else min(limit, most)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, most))
