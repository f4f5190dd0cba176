"""A whole benchmark of one model: engines side by side, where the time goes, and layers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dirnet_convert.bench.engines import EngineKind, bound_call, open_engine, random_inputs
from dirnet_convert.bench.layers import LayerResult, compare_layers, find_layers
from dirnet_convert.bench.machine import Machine, this_machine
from dirnet_convert.bench.measure import Contestant, Measurement, MeasureOptions, measure
from dirnet_convert.bench.openvino import (
    CHECKED_INPUTS,
    Demand,
    RivalCheck,
    bound_openvino_call,
    check_rival,
    file_bytes,
)
from dirnet_convert.bench.peaks import Peaks, measure_peaks
from dirnet_convert.bench.profile import Profile, profile_in_turns
from dirnet_convert.environment import usable_cores
from dirnet_convert.errors import UsageError
from dirnet_convert.recipe import Rest
from dirnet_convert.runtime.int8 import rest_of
from dirnet_convert.runtime.isa import chosen_isa
from dirnet_convert.runtime.model_file import read_model
from dirnet_convert.runtime.openvino import compile_for_cpu

if TYPE_CHECKING:
    import onnxruntime

PROFILE_TURNS = 5


@dataclass(frozen=True)
class BenchOptions:
    """What is measured: numbers of threads, batch size, rounds, and whether layers are measured alone."""

    threads: tuple[int, ...] = (1,)
    batch: int = 1
    layers: bool = False
    seed: int = 0
    measure: MeasureOptions = field(default_factory=MeasureOptions)

    def __post_init__(self) -> None:
        if not self.threads or min(self.threads) < 1:
            raise UsageError("The number of threads must be at least 1.")
        if self.batch < 1:
            raise UsageError(f"The batch must hold at least one image, not {self.batch}.")


def require_cores(threads: tuple[int, ...], cores: int) -> None:
    """Do nothing where ``cores`` processors suffice for every number of ``threads``.

    Raises:
        UsageError: they do not.
    """
    if max(threads) > cores:
        raise UsageError(
            f"{max(threads)} threads are asked for, but the benchmark may use {cores} "
            f"processor{'s' if cores > 1 else ''}; more threads than processors measure nothing."
        )


def require_batch(session: onnxruntime.InferenceSession, model: Path, batch: int) -> None:
    """Do nothing where ``session``, which runs the file ``model``, takes ``batch`` images at a time.

    Raises:
        UsageError: it takes another number of them only.
    """
    size = session.get_inputs()[0].shape[0]
    if isinstance(size, int) and size != batch:
        raise UsageError(f"{model.name} takes batches of {size} only; bench it with --batch {size}.")


@dataclass(frozen=True)
class ThreadResult:
    """Everything measured with one number of threads."""

    threads: int
    engines: Measurement
    profiles: dict[EngineKind, Profile]
    layers: tuple[LayerResult, ...]


@dataclass(frozen=True)
class BenchResult:
    """A benchmark with all that is needed to judge it; ``rest`` is the binary model's.

    ``notes`` are sentences on the machine: which cores ran, its governor, how warm it became.
    """

    machine: Machine
    isa: str
    options: BenchOptions
    file_bytes: dict[EngineKind, int]
    results: tuple[ThreadResult, ...]
    rest: Rest = Rest.FLOAT
    rivals: dict[EngineKind, RivalCheck] = field(default_factory=dict)
    peaks: Peaks | None = None
    notes: tuple[str, ...] = ()


Progress = Callable[[str, int, int], None]


def require_pair(models: Mapping[EngineKind, Path]) -> None:
    """Raise UsageError where ``models`` has not both of what is compared, FP32 and binary."""
    if EngineKind.FP32 not in models or EngineKind.BINARY not in models:
        raise UsageError("A comparison needs the engines fp32 and binary.")


def run_suite(
    models: Mapping[EngineKind, Path], options: BenchOptions, on_progress: Progress | None = None
) -> BenchResult:
    """Measure ``models`` (a file for each engine; FP32 and binary are needed) and return all figures.

    ``on_progress`` is told what is under way, how much of it is done and how much there is.

    Raises:
        UsageError: FP32 or binary is missing, a model does not take the batch, or processors are too few.
        DirnetError: a model does not load, or computes something else than its twin.
    """
    require_pair(models)
    require_cores(options.threads, usable_cores())
    report = on_progress or (lambda _what, _done, _total: None)
    rest = rest_of(read_model(models[EngineKind.BINARY]))
    rivals = _check_rivals(models, options, rest, report)
    return BenchResult(
        machine=this_machine(("openvino",) if rivals else ()),
        isa=str(chosen_isa()),
        options=options,
        file_bytes={kind: file_bytes(path) for kind, path in models.items()},
        results=tuple(_with_threads(models, options, threads, report) for threads in options.threads),
        rest=rest,
        rivals=rivals,
        peaks=measure_peaks() if options.layers else None,
    )


def _with_threads(
    models: Mapping[EngineKind, Path], options: BenchOptions, threads: int, report: Progress
) -> ThreadResult:
    title = f"{threads} thread{'s' if threads > 1 else ''}"
    contestants = [_contestant(kind, models, options, threads) for kind in models]
    rounds = options.measure.rounds
    finished = _Counter(report, f"engines, {title}", rounds)
    engines = measure(contestants, options.measure, finished)
    pair = {kind: models[kind] for kind in (EngineKind.FP32, EngineKind.BINARY)}
    report(f"profile, {title}", 0, 1)
    profiles = profile_in_turns(pair, threads, options.batch, options.seed, PROFILE_TURNS)
    report(f"profile, {title}", 1, 1)
    layers: tuple[LayerResult, ...] = ()
    if options.layers:
        binary = read_model(models[EngineKind.BINARY])
        found = find_layers(binary, profiles[EngineKind.BINARY])
        done = _Counter(report, f"layers, {title}", len(found))
        layers = compare_layers(found, threads, options.measure, options.seed, done)
    return ThreadResult(threads, engines, profiles, layers)


def _contestant(
    kind: EngineKind, models: Mapping[EngineKind, Path], options: BenchOptions, threads: int
) -> Contestant:
    if kind.twin is not None:
        images = _images(open_engine(kind.twin, models[kind.twin], threads), options, options.seed)
        compiled = compile_for_cpu(models[kind], threads, options.batch)
        return Contestant(kind, bound_openvino_call(compiled, images))
    session = open_engine(kind, models[kind], threads)
    require_batch(session, models[kind], options.batch)
    return Contestant(kind, bound_call(session, random_inputs(session, options.batch, options.seed)))


def _check_rivals(
    models: Mapping[EngineKind, Path], options: BenchOptions, rest: Rest, report: Progress
) -> dict[EngineKind, RivalCheck]:
    """Compare what is in OpenVINO with the same network in ONNX Runtime, before anything is timed."""
    kinds = [kind for kind in models if kind.twin is not None]
    threads = options.threads[0]
    checks = {}
    for done, kind in enumerate(kinds):
        report("comparing outputs", done, len(kinds))
        session = open_engine(kind.twin, models[kind.twin], threads)
        inputs = [_images(session, options, options.seed + k) for k in range(CHECKED_INPUTS)]
        demand = _demand(kind.twin, rest)
        checks[kind] = check_rival(session, models[kind.twin], models[kind], threads, inputs, demand)
    return checks


def _demand(twin: EngineKind, rest: Rest) -> Demand:
    if twin is EngineKind.FP32:
        return Demand.EVERY_INPUT
    return Demand.ANY_INPUT if rest is Rest.FLOAT else Demand.NONE


def _images(session: onnxruntime.InferenceSession, options: BenchOptions, seed: int) -> np.ndarray:
    (images,) = random_inputs(session, options.batch, seed).values()
    return images


class _Counter:
    """Counts finished steps of one part of the work and reports each."""

    def __init__(self, report: Progress, what: str, total: int) -> None:
        self._report, self._what, self._done, self._total = report, what, 0, total
        report(what, 0, total)

    def __call__(self) -> None:
        self._done += 1
        self._report(self._what, self._done, self._total)
