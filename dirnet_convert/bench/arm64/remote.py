"""A benchmark on another machine: the bundle goes there, runs, and its figures come back."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dirnet_convert.bench.arm64.board import Board, ask_board, free_bytes, heat_c, ran
from dirnet_convert.bench.arm64.bundle import (
    OPERATORS,
    RUNTIME,
    RunnerKind,
    fill_bundle,
    needed_bytes,
    prepare_python,
    start_command,
)
from dirnet_convert.bench.arm64.cores import CoreChoice, choose_cores
from dirnet_convert.bench.arm64.job import Answer, JobEngine, JobFolder, read_answer
from dirnet_convert.bench.arm64.tools import last_words
from dirnet_convert.bench.arm64.transport import Transport
from dirnet_convert.bench.engines import EngineKind, open_engine, random_inputs
from dirnet_convert.bench.machine import Machine
from dirnet_convert.bench.profile import Profile, read_profile
from dirnet_convert.bench.suite import (
    PROFILE_TURNS,
    BenchOptions,
    BenchResult,
    Progress,
    ThreadResult,
    require_batch,
    require_cores,
    require_pair,
)
from dirnet_convert.environment import package_versions
from dirnet_convert.errors import DirnetError
from dirnet_convert.runtime.int8 import rest_of
from dirnet_convert.runtime.isa import Isa
from dirnet_convert.runtime.model_file import read_model

_RUNS_PER_TURN = 10


@dataclass(frozen=True)
class RemoteOptions:
    """What runs the networks there, and on which of its cores."""

    runner: RunnerKind = RunnerKind.PYTHON
    cores: CoreChoice = CoreChoice.BIG


def run_remote(
    transport: Transport,
    models: Mapping[EngineKind, Path],
    options: BenchOptions,
    remote: RemoteOptions,
    on_progress: Progress | None = None,
) -> BenchResult:
    """Measure ``models`` on the machine behind ``transport``, and leave nothing there.

    Raises:
        UsageError: FP32 or binary is missing, a model does not take the batch, or the machine has fewer
            processors than threads are asked for.
        DirnetError: the connection fails, or the machine cannot run the benchmark.
    """
    report = on_progress or (lambda _what, _done, _total: None)
    require_pair(models)
    report(f"asking {transport.name}", 0, 1)
    board = ask_board(transport)
    cores = choose_cores(board.capacities, remote.cores)
    require_cores(options.threads, len(cores))
    version = package_versions()["onnxruntime"]
    with tempfile.TemporaryDirectory() as name, _folder_there(transport) as there:
        here = Path(name)
        report("building for arm64", 0, 1)
        fill_bundle(remote.runner, here, version)
        _write_job(here, models, options)
        _require_space(transport, there, needed_bytes(remote.runner, here))
        report(f"sending to {transport.name}", 0, 1)
        transport.send(here, there)
        python = "none"
        if remote.runner is RunnerKind.PYTHON:
            report(f"ONNX Runtime for {transport.name}", 0, 1)
            python = prepare_python(transport, there)
        report(f"measuring on {transport.name}", 0, 1)
        answer = _measure(transport, start_command(remote.runner, there), board, cores)
        after_c = heat_c(transport)
        files = [file for part in answer.parts for file in part.profiles.values()]
        transport.fetch(there, files, here)
        results = tuple(
            ThreadResult(part.threads, part.measurement(), _profiles(models, part.profiles, here), ())
            for part in answer.parts
        )
    return BenchResult(
        machine=_machine(board, len(cores), python, answer.runtime),
        isa=str(Isa.NEON),
        options=options,
        file_bytes={kind: path.stat().st_size for kind, path in models.items()},
        results=results,
        rest=rest_of(read_model(models[EngineKind.BINARY])),
        notes=tuple(_notes(transport, board, cores, after_c)),
    )


@contextlib.contextmanager
def _folder_there(transport: Transport) -> Iterator[str]:
    made = ran(transport, f"mktemp -d {transport.scratch}/dirnet.XXXXXX", "Making a folder").strip()
    if not made.startswith("/") or any(character.isspace() for character in made):
        raise DirnetError(f"{transport.name} cannot make a folder of its own: {made or 'no answer'}.")
    try:
        yield made
    finally:
        # Where the connection is gone, that is what is reported, and not this.
        with contextlib.suppress(DirnetError):
            transport.run(f"rm -rf {made}")


def _write_job(folder: Path, models: Mapping[EngineKind, Path], options: BenchOptions) -> None:
    job = JobFolder(folder, f"./{RUNTIME}", f"./{OPERATORS}")
    for kind, path in models.items():
        session = open_engine(kind, path, 1)
        require_batch(session, path, options.batch)
        names = tuple(entry.name for entry in session.get_outputs())
        inputs = random_inputs(session, options.batch, options.seed)
        job.add(JobEngine(str(kind), path, kind is EngineKind.BINARY, inputs, names))
    for threads in options.threads:
        job.threads(threads)
        job.time(options.measure)
        job.profile(_RUNS_PER_TURN, PROFILE_TURNS)
    job.close()


def _require_space(transport: Transport, folder: str, needed: int) -> None:
    free = free_bytes(transport, folder)
    if free is not None and free < needed:
        raise DirnetError(
            f"There is no space on {transport.name}: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB "
            "are free; free some and run again."
        )


def _measure(transport: Transport, command: str, board: Board, cores: tuple[int, ...]) -> Answer:
    pinned = command
    if 0 < len(cores) < len(board.capacities):
        # Android's taskset takes a mask and nothing else; Linux's takes one, too.
        mask = f"{sum(1 << core for core in cores):x}"
        head, _, program = command.partition(" && ")
        words = program.split(" ")
        at = 1 if "=" in words[0] else 0
        pinned = " ".join([head, "&&", *words[:at], "taskset", mask, *words[at:]])
    done = transport.run(pinned)
    if done.status not in (0, 1) or not done.output:
        raise DirnetError(
            f"The runner cannot start on {transport.name}: {last_words(done.errors) or done.status}."
        )
    return read_answer(done.output, f"The runner on {transport.name}")


def _profiles(
    models: Mapping[EngineKind, Path], files: Mapping[str, str], folder: Path
) -> dict[EngineKind, Profile]:
    profiles = {}
    for kind in (EngineKind.FP32, EngineKind.BINARY):
        events = json.loads((folder / files[str(kind)]).read_text())
        profiles[kind] = read_profile(events, read_model(models[kind]))
    return profiles


def _machine(board: Board, cores: int, python: str, runtime: str) -> Machine:
    versions = {"dirnet": package_versions()["dirnet"], "onnxruntime": runtime}
    return Machine(board.name, cores, "aarch64", board.system, python, versions)


def _notes(
    transport: Transport, board: Board, cores: tuple[int, ...], after_c: float | None
) -> Iterator[str]:
    yield f"Measured on {transport.name}; processor features: {' '.join(board.features) or 'not told'}."
    if len(cores) < len(board.capacities):
        yield f"Pinned to cores {', '.join(map(str, cores))} of {len(board.capacities)}."
    if board.governors and board.governors != ("performance",):
        yield (f"Governor {', '.join(board.governors)}: the clock changes meanwhile; 'performance' keeps it.")
    if board.heat_c is not None and after_c is not None:
        yield f"Temperature {board.heat_c:.0f} degrees Celsius before, {after_c:.0f} after."
