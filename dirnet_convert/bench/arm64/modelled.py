"""Inner loops under llvm-mca: cycles of a processor's model, with everything in the nearest cache.

A model and not a measurement: it knows nothing of memory, and of branches only that they are taken.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dirnet_convert.bench.arm64.tools import find_tool, last_words, run_tool
from dirnet_convert.errors import DirnetError

CPUS = ("cortex-a53", "cortex-a55", "cortex-a72", "neoverse-n1")
# Older ones give the Neoverse N1 the Cortex-A72's figures.
_VERSIONS = range(30, 14, -1)
_OBJDUMP = "aarch64-linux-gnu-objdump"
_ITERATIONS = 1000
_LINE = re.compile(r"^\s*([0-9a-f]+):\s+(\S.*)$")
_BRANCH = re.compile(r"^(?:b|b\.\w+|cbn?z|tbn?z)\s.*?\b([0-9a-f]+)\s+<.*>$")
_LEAVES = re.compile(r"^(?:bl|blr|br|ret)\b")
_VECTOR = re.compile(r"\b[bhsdqv]\d+\b")
_BINARY_STEP = re.compile(r"^cnt\s.*\.16b")
_FLOAT_STEP = re.compile(r"^fmla\s.*\.4s")
# A byte step of 16 lanes is 8 x 16 multiply-adds; a fused multiply-add of four floats is 4.
_BINARY_MACS, _FLOAT_MACS = 128, 4
# Fewer multiply-adds than this in a loop are no tile of a matrix product.
_FLOAT_STEPS = 16


@dataclass(frozen=True)
class InnerLoop:
    """A loop as the compiler wrote it; ``vector`` counts what works on vector registers, loads included."""

    name: str
    text: tuple[str, ...]
    macs: int

    @property
    def vector(self) -> int:
        """Instructions that read or write a vector register."""
        return sum(bool(_VECTOR.search(line)) for line in self.text)


@dataclass(frozen=True)
class ModelledLoop:
    """A loop's cycles on the model of one processor."""

    name: str
    cpu: str
    model: str
    macs: int
    instructions: int
    vector_instructions: int
    cycles: float

    @property
    def macs_per_cycle(self) -> float:
        """Multiply-adds of a cycle."""
        return self.macs / self.cycles


def binary_loop(library: Path) -> InnerLoop:
    """Return the loop of the operator library with the most popcounts.

    Raises:
        DirnetError: the library cannot be disassembled, or is not one for arm64.
    """
    best = max(_loops(library, _BINARY_STEP), key=lambda loop: loop[1], default=None)
    if best is None:
        raise DirnetError(f"{library} has no loop of popcounts; it is no dirnet library for arm64.")
    return InnerLoop("binary", best[0], best[1] * _BINARY_MACS)


def float_loop(runtime: Path) -> InnerLoop | None:
    """Return ONNX Runtime's densest loop of float multiply-adds, None where none is found.

    Raises:
        DirnetError: the library cannot be disassembled.
    """
    found = [loop for loop in _loops(runtime, _FLOAT_STEP) if loop[1] >= _FLOAT_STEPS]
    best = max(found, key=lambda loop: loop[1] / len(loop[0]), default=None)
    return InnerLoop("FP32", best[0], best[1] * _FLOAT_MACS) if best is not None else None


def modelled_loops(library: Path, runtime: Path) -> tuple[ModelledLoop, ...]:
    """Return both inner loops on the model of every processor in CPUS; nothing where llvm-mca is missing.

    Raises:
        DirnetError: a library cannot be disassembled, or llvm-mca refuses a loop.
    """
    tool = next((path for n in _VERSIONS if (path := find_tool(f"llvm-mca-{n}")) is not None), None)
    if tool is None or find_tool(_OBJDUMP) is None:
        return ()
    loops = (binary_loop(library), float_loop(runtime))
    return tuple(_model(tool, loop, cpu) for loop in loops if loop is not None for cpu in CPUS)


def _loops(library: Path, step: re.Pattern[str]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield every innermost loop with its number of lines that match ``step``."""
    for lines in _functions(library, lambda text: bool(step.match(text))):
        positions = {address: k for k, (address, _) in enumerate(lines)}
        for k, (_, text) in enumerate(lines):
            target = _target(text)
            if target is None or target not in positions or positions[target] > k:
                continue
            body = [line for _, line in lines[positions[target] : k]]
            if any(_target(line) is not None or _LEAVES.match(line) for line in body):
                continue
            yield (*body, text), sum(bool(step.match(line)) for line in body)


def _functions(library: Path, wanted: Callable[[str], bool]) -> Iterator[list[tuple[int, str]]]:
    """Yield the (address, text) of all instructions of each function that has a wanted one."""
    command = [_OBJDUMP, "-d", "--no-show-raw-insn", str(library)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        lines: list[tuple[int, str]] = []
        kept = False
        for line in process.stdout or ():
            match = _LINE.match(line)
            if match is None:
                if kept:
                    yield lines
                lines, kept = [], False
                continue
            text = match[2].partition("//")[0].strip()
            lines.append((int(match[1], 16), text))
            kept = kept or wanted(text)
        if kept:
            yield lines
    if process.returncode != 0:
        raise DirnetError(f"{_OBJDUMP} cannot read {library}.")


def _target(text: str) -> int | None:
    match = _BRANCH.match(text)
    return int(match[1], 16) if match else None


def _model(tool: Path, loop: InnerLoop, cpu: str) -> ModelledLoop:
    *body, branch = loop.text
    # The branch's target means nothing outside the library.
    source = "\n".join(["loop:", *body, _BRANCH.sub(_to_label, branch)]) + "\n"
    command = [str(tool), "-mtriple=aarch64", f"-mcpu={cpu}", f"-iterations={_ITERATIONS}", "-summary-view"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    cycles = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if done.returncode != 0 or cycles is None:
        raise DirnetError(f"{tool.name} refuses the loop of {loop.name}: {last_words(done.stderr)}.")
    version = re.search(r"version ([\d.]+)", run_tool((tool, "--version"), tool.name))
    return ModelledLoop(
        name=loop.name,
        cpu=cpu,
        model=f"llvm-mca {version[1] if version else ''}".strip(),
        macs=loop.macs,
        instructions=len(loop.text),
        vector_instructions=loop.vector,
        cycles=int(cycles[1]) / _ITERATIONS,
    )


def _to_label(match: re.Match[str]) -> str:
    return match[0][: match.start(1) - match.start(0)] + "loop"
