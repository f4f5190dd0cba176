"""What can be said of arm64 without such a machine: equal bits, and instructions counted one by one.

The real aarch64 build of ONNX Runtime runs under an emulator with the cross-built kernels. An emulator tells
nothing about time: no milliseconds and no speed come out of here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from dirnet_convert.bench.arm64.artifacts import arm64_build, runtime_library
from dirnet_convert.bench.arm64.emulator import CPU, Counted, Emulator, open_emulator
from dirnet_convert.bench.arm64.job import Answer, JobEngine, JobFolder, read_answer
from dirnet_convert.bench.arm64.modelled import ModelledLoop, modelled_loops
from dirnet_convert.bench.engines import EngineKind, open_engine, random_inputs
from dirnet_convert.bench.layers import Layer, binary_layer_model, find_layers, float_layer_model
from dirnet_convert.bench.profile import Profile, profile_in_turns, read_profile
from dirnet_convert.environment import package_versions
from dirnet_convert.errors import DirnetError
from dirnet_convert.runtime.model_file import read_model

_WHAT = "The runner under the emulator"
_RUNS = 3
_PAIR = (EngineKind.FP32, EngineKind.BINARY)


@dataclass(frozen=True)
class NetworkEquality:
    """The whole network's output here and emulated: share of equal values, largest difference by RMS."""

    equal_share: float
    largest_difference: float


@dataclass(frozen=True)
class OperatorCount:
    """Instructions of all nodes of one operator in one inference."""

    op: str
    nodes: int
    instructions: int


@dataclass(frozen=True)
class LayerCount:
    """Instructions of one distinct binary convolution, which alone gives this machine's output bit for bit.

    ``vector_instructions`` are those of the binary layer that work on vector registers.
    """

    layer: str
    modules: tuple[str, ...]
    macs: int
    fp32_instructions: int
    binary_instructions: int
    vector_instructions: int

    @property
    def times_fewer(self) -> float:
        """FP32's instructions by the binary layer's."""
        return self.fp32_instructions / self.binary_instructions


@dataclass(frozen=True)
class EmulatedResult:
    """Everything that the emulation told; counts are of one inference of one image on one thread."""

    emulator: str
    cpu: str
    runtime: str
    versions: dict[str, str]
    image_size: int
    networks: dict[EngineKind, NetworkEquality]
    operators: dict[EngineKind, tuple[OperatorCount, ...]]
    layers: tuple[LayerCount, ...]
    modelled: tuple[ModelledLoop, ...]

    @property
    def totals(self) -> dict[EngineKind, int]:
        """Instructions of one inference of each network."""
        return {kind: sum(item.instructions for item in counts) for kind, counts in self.operators.items()}


Progress = Callable[[str, int, int], None]


def run_emulated(
    models: Mapping[EngineKind, Path], image_size: int, seed: int, on_progress: Progress | None = None
) -> EmulatedResult:
    """Run the FP32 and the binary model of ``models`` and each binary layer under the emulator.

    Raises:
        DirnetError: a tool or a download is missing, or a binary layer gives other bits than here.
    """
    report = on_progress or (lambda _what, _done, _total: None)
    report("building for arm64", 0, 1)
    version = package_versions()["onnxruntime"]
    with open_emulator() as emulator:
        runtime, operators = runtime_library(version), arm64_build().library
        bench = _Bench(emulator, runtime, operators, models, seed)
        report("networks, emulated", 0, 1)
        networks, counts = bench.networks()
        here = profile_in_turns({EngineKind.BINARY: models[EngineKind.BINARY]}, 1, 1, seed, 1)
        found = find_layers(read_model(models[EngineKind.BINARY]), here[EngineKind.BINARY])
        layers = []
        for done, layer in enumerate(found):
            report("layers, emulated", done, len(found))
            layers.append(bench.layer(layer))
        report("layers, emulated", len(found), len(found))
    return EmulatedResult(
        emulator=str(emulator.program.name),
        cpu=CPU,
        runtime=f"ONNX Runtime {version}, its own aarch64 build",
        versions=package_versions(),
        image_size=image_size,
        networks=networks,
        operators=counts,
        layers=tuple(layers),
        modelled=modelled_loops(operators, runtime),
    )


@dataclass(frozen=True)
class _Bench:
    emulator: Emulator
    runtime: Path
    operators: Path
    models: Mapping[EngineKind, Path]
    seed: int

    def networks(
        self,
    ) -> tuple[dict[EngineKind, NetworkEquality], dict[EngineKind, tuple[OperatorCount, ...]]]:
        """Compare both networks' outputs with this machine's, and count their operators' instructions."""
        expected = {kind: _run_here(kind, self.models[kind], self.seed) for kind in _PAIR}
        answers, profiles = self._run({kind: self.models[kind] for kind in _PAIR}, expected, Counted.ALL)
        equality = {kind: _equality(expected[kind].outputs, answers[kind]) for kind in _PAIR}
        return equality, {kind: _by_operator(profiles[kind]) for kind in _PAIR}

    def layer(self, layer: Layer) -> LayerCount:
        """Compare one binary layer's output with this machine's, and count it and its FP32 twin."""
        protos = {
            EngineKind.FP32: float_layer_model(layer.shape, self.seed),
            EngineKind.BINARY: binary_layer_model(layer),
        }
        with tempfile.TemporaryDirectory() as name:
            models = {kind: Path(name) / f"{kind}.onnx" for kind in _PAIR}
            for kind, path in models.items():
                onnx.save(protos[kind], str(path))
            channels = layer.shape.input[1]
            expected = {kind: _run_here(kind, path, self.seed, channels) for kind, path in models.items()}
            answers, counts = self._run(models, expected, Counted.ALL)
            _, vectors = self._run({EngineKind.BINARY: models[EngineKind.BINARY]}, expected, Counted.VECTOR)
        pairs = zip(expected[EngineKind.BINARY].outputs, answers[EngineKind.BINARY], strict=True)
        if any(ours.tobytes() != theirs.tobytes() for ours, theirs in pairs):
            raise DirnetError(
                f"The binary layer {layer.modules[0]} gives other bits on arm64 than here; please report "
                "this with the output of 'dirnet env'."
            )
        return LayerCount(
            layer=str(layer.shape),
            modules=layer.modules,
            macs=layer.shape.macs,
            fp32_instructions=_convolution(counts[EngineKind.FP32]),
            binary_instructions=_total(counts[EngineKind.BINARY]),
            vector_instructions=_total(vectors[EngineKind.BINARY]),
        )

    def _run(
        self, models: Mapping[EngineKind, Path], expected: Mapping[EngineKind, _Expected], counted: Counted
    ) -> tuple[dict[EngineKind, list[np.ndarray]], dict[EngineKind, Profile]]:
        with tempfile.TemporaryDirectory() as name:
            job = JobFolder(Path(name), str(self.runtime), str(self.operators))
            for kind, path in models.items():
                names = tuple(expected[kind].names)
                binary = kind is EngineKind.BINARY
                job.add(JobEngine(str(kind), path, binary, expected[kind].inputs, names))
            job.threads(1)
            job.check()
            job.profile(_RUNS, 1)
            answer = read_answer(self.emulator.run(job.folder, job.close(), counted), _WHAT)
            outputs = {
                kind: job.outputs(str(kind), [value.dtype for value in expected[kind].outputs])
                for kind in models
            }
            return outputs, {kind: _profile(answer, kind, path, job.folder) for kind, path in models.items()}


@dataclass(frozen=True)
class _Expected:
    inputs: dict[str, np.ndarray]
    names: list[str]
    outputs: list[np.ndarray]


def _run_here(kind: EngineKind, model: Path, seed: int, bit_channels: int = 64) -> _Expected:
    session = open_engine(kind, model, 1)
    inputs = random_inputs(session, 1, seed, bit_channels)
    names = [entry.name for entry in session.get_outputs()]
    return _Expected(inputs, names, session.run(names, inputs))


def _profile(answer: Answer, kind: EngineKind, model: Path, folder: Path) -> Profile:
    events = json.loads((folder / answer.parts[0].profiles[str(kind)]).read_text())
    return read_profile(events, read_model(model), warmup_runs=1)


def _equality(ours: list[np.ndarray], theirs: list[np.ndarray]) -> NetworkEquality:
    here = np.concatenate([value.ravel().astype(np.float64) for value in ours])
    there = np.concatenate([value.ravel().astype(np.float64) for value in theirs])
    rms = float(np.sqrt(np.mean(here**2))) or 1.0
    return NetworkEquality(float(np.mean(here == there)), float(np.max(np.abs(here - there))) / rms)


def _instructions(profile: Profile) -> dict[str, list[int]]:
    """Return the instructions of every node by operator: a microsecond of the profile is an instruction.

    Of several runs the smallest counts: memory that is touched for the first time costs some more.
    """
    found: dict[str, list[int]] = {}
    for node in profile.nodes:
        found.setdefault(node.op, []).append(int(node.fastest_ms * 1000))
    return found


def _by_operator(profile: Profile) -> tuple[OperatorCount, ...]:
    counts = [OperatorCount(op, len(nodes), sum(nodes)) for op, nodes in _instructions(profile).items()]
    return tuple(sorted(counts, key=lambda item: -item.instructions))


def _total(profile: Profile) -> int:
    return sum(sum(nodes) for nodes in _instructions(profile).values())


def _convolution(profile: Profile) -> int:
    """Return the instructions of the FP32 layer without the reorders around it, which a network shares."""
    return sum(sum(nodes) for op, nodes in _instructions(profile).items() if op in ("Conv", "FusedConv"))
