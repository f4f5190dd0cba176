"""A job for the runners: models and inputs in a folder, the statements, and the answer read back.

The C++ runner (kernels/runner/runner.cc) and the Python one (board_runner.py) take the same job and print the
same answer.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dirnet_convert.bench.measure import Measurement, MeasureOptions, summarize
from dirnet_convert.errors import DirnetError

JOB = "job.txt"


@dataclass(frozen=True)
class JobEngine:
    """A model to run: its name in the answer, its file, whether it needs the operators, inputs, outputs."""

    name: str
    model: Path
    with_operators: bool
    inputs: dict[str, np.ndarray]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class TimedPart:
    """What was measured with one number of threads: times in turns, and the profiles' file names."""

    threads: int
    rounds: dict[int, dict[str, float]] = field(default_factory=dict)
    loads: dict[int, float] = field(default_factory=dict)
    profiles: dict[str, str] = field(default_factory=dict)

    def measurement(self) -> Measurement:
        """Return the rounds as one measurement."""
        names = list(self.rounds[0])
        numbers = sorted(self.rounds)
        times = [[self.rounds[number][name] for name in names] for number in numbers]
        return summarize(names, times, [self.loads.get(number) for number in numbers])


@dataclass(frozen=True)
class Answer:
    """What a runner printed: its ONNX Runtime's version, and a part for each ``threads`` of the job."""

    runtime: str
    parts: tuple[TimedPart, ...]


class JobFolder:
    """A job being written into ``folder``; file names in it are relative, so that the folder can travel."""

    def __init__(self, folder: Path, runtime: str, operators: str) -> None:
        self.folder = folder
        self._engines: list[JobEngine] = []
        self._lines = [f"runtime {runtime}", f"operators {operators}"]

    def add(self, engine: JobEngine) -> None:
        """Copy the engine's model and inputs into the folder.

        Raises:
            DirnetError: a name has a blank in it.
        """
        index = len(self._engines)
        self._engines.append(engine)
        model = f"{engine.name}{engine.model.suffix}"
        shutil.copyfile(engine.model, self.folder / model)
        data = engine.model.with_name(engine.model.name + ".data")
        if data.is_file():
            shutil.copyfile(data, self.folder / data.name)
        kind = "dirnet" if engine.with_operators else "stock"
        self._lines.append(f"engine {engine.name} {model} {kind}")
        for k, (name, value) in enumerate(engine.inputs.items()):
            file = f"input_{index}_{k}.bin"
            value.tofile(self.folder / file)
            dims = " ".join(map(str, (value.ndim, *value.shape)))
            self._lines.append(f"input {engine.name} {_word(name)} {value.dtype.name} {file} {dims}")
        for k, name in enumerate(engine.outputs):
            self._lines.append(f"output {engine.name} {_word(name)} {self._output(index, k)}")

    def check(self) -> None:
        """Have every engine run once and write its outputs."""
        self._lines.append("check")

    def threads(self, threads: int) -> None:
        """Have all that follows run with ``threads`` threads."""
        self._lines.append(f"threads {threads}")

    def time(self, options: MeasureOptions) -> None:
        """Have the engines timed in turns."""
        self._lines.append(f"time {options.rounds} {options.block_ms} {options.warmup_calls}")

    def profile(self, runs: int, turns: int) -> None:
        """Have the engines write profiles of ``runs`` inferences in each of ``turns`` turns."""
        self._lines.append(f"profile {runs} {turns}")

    def close(self) -> Path:
        """Write the statements and return their file."""
        path = self.folder / JOB
        path.write_text("\n".join(self._lines) + "\n")
        return path

    def outputs(self, name: str, kinds: Sequence[np.dtype]) -> list[np.ndarray]:
        """Return the flat outputs that the engine ``name`` wrote, of the given types."""
        index = [engine.name for engine in self._engines].index(name)
        return [np.fromfile(self.folder / self._output(index, k), dtype=kind) for k, kind in enumerate(kinds)]

    @staticmethod
    def _output(index: int, k: int) -> str:
        return f"output_{index}_{k}.bin"


def read_answer(text: str, what: str) -> Answer:
    """Return what a runner printed as values.

    Raises:
        DirnetError: it reports an error, or ended too early; the sentence begins with ``what``.
    """
    runtime = ""
    parts: list[TimedPart] = []
    for line in text.splitlines():
        verb, _, rest = line.partition(" ")
        words = rest.split()
        if verb == "error":
            raise DirnetError(f"{what} failed: {rest.rstrip('.')}.")
        if verb == "done":
            return Answer(runtime, tuple(parts))
        if verb == "runtime":
            runtime = rest
        elif verb == "threads":
            parts.append(TimedPart(int(rest)))
        elif verb == "round":
            parts[-1].rounds.setdefault(int(words[0]), {})[words[1]] = float(words[2])
        elif verb == "load":
            parts[-1].loads[int(words[0])] = float(words[1])
        elif verb == "profile":
            parts[-1].profiles[words[0]] = words[1]
    raise DirnetError(f"{what} ended before it was done; run it again.")


def _word(name: str) -> str:
    if not name or any(character.isspace() for character in name):
        raise DirnetError(
            f"The model has an input or output named '{name}'; names with blanks cannot be sent."
        )
    return name
