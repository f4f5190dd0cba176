"""Where the time goes inside a model: ONNX Runtime's own profile, node by node."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from dirnet_convert.bench.engines import EngineKind, bound_call, open_engine, random_inputs
from dirnet_convert.runtime.model_file import read_model

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime

    Feeds = dict[str, np.ndarray]

DOMAIN = "ai.dirnet"
# How the operators are named that hold the weights of a binary layer.
BINARY_LAYERS = ("BinaryConv2d", "BinaryGemm")
# How those are named that read or write bits and nothing else; the stem's arithmetic is float or INT8.
_ON_BITS = ("Binarize", *BINARY_LAYERS, "BinaryMaxPool2d")
_KERNEL_TIME = "_kernel_time"
# ONNX Runtime names a convolution that it moves to its blocked layout by the tensor that comes out.
_BLOCKED = "_nchwc"
_WARMUP_RUNS = 3
# Several inferences at each turn: the first of them finds the caches filled by the other model.
_RUNS_PER_TURN = 10
# ONNX Runtime cuts durations to whole microseconds: half of one is what is lost on average.
_TRUNCATION_US = 0.5


@dataclass(frozen=True)
class NodeTime:
    """One node's share of an inference; ``module`` is the PyTorch module behind it, '' if unknown.

    ``binary``: it is a binary layer, or makes or pools bits; the stem is none, even where it makes bits, too.
    ``fastest_ms`` is the time of the call that was disturbed least.
    """

    node: str
    op: str
    module: str
    binary: bool
    median_ms: float
    fastest_ms: float
    input_shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Profile:
    """All nodes of a model in the order in which they run."""

    nodes: tuple[NodeTime, ...]

    @property
    def total_ms(self) -> float:
        """Sum of the nodes' times."""
        return sum(node.median_ms for node in self.nodes)

    @property
    def binary_ms(self) -> float:
        """Time in the operators on bits."""
        return sum(node.median_ms for node in self.nodes if node.binary)

    @property
    def binary_share(self) -> float:
        """Share of the time that the operators on bits take, 0 to 1."""
        return self.binary_ms / self.total_ms if self.total_ms else 0.0

    def by_operator(self) -> dict[str, float]:
        """Return milliseconds per kind of operator, largest first."""
        sums: dict[str, float] = {}
        for node in self.nodes:
            sums[node.op] = sums.get(node.op, 0.0) + node.median_ms
        return dict(sorted(sums.items(), key=lambda item: -item[1]))


class Profiler:
    """One session that records its nodes' times; to be run in turns with others, then read once."""

    def __init__(
        self,
        kind: EngineKind,
        model: Path,
        threads: int,
        feeds: Callable[[onnxruntime.InferenceSession], Feeds],
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._model = read_model(model)
        self._session = open_engine(kind, model, threads, Path(self._folder.name) / "profile")
        self.call: Callable[[], None] = bound_call(self._session, feeds(self._session))

    def finish(self) -> Profile:
        """Stop recording and return the medians; the session must not be called again."""
        path = Path(self._session.end_profiling())
        events = json.loads(path.read_text())
        self._folder.cleanup()
        return read_profile(events, self._model)


def profile_in_turns(
    models: Mapping[EngineKind, Path], threads: int, batch: int, seed: int, turns: int
) -> dict[EngineKind, Profile]:
    """Return the profile of each model from ``turns`` turns, the models one after the other in each."""

    def feeds(session: onnxruntime.InferenceSession) -> Feeds:
        return random_inputs(session, batch, seed)

    profilers = {kind: Profiler(kind, model, threads, feeds) for kind, model in models.items()}
    for _ in range(turns):
        for profiler in profilers.values():
            for _ in range(_RUNS_PER_TURN):
                profiler.call()
    return {kind: profiler.finish() for kind, profiler in profilers.items()}


def kernel_ms(profile: Profile, ops: Sequence[str]) -> float:
    """Return the time of the nodes whose operator is one of ``ops``."""
    return sum(node.median_ms for node in profile.nodes if node.op in ops)


def module_name(node: str) -> str:
    """Return the PyTorch module that the exported node ``node`` is named after."""
    return node.partition("/")[0].partition("#")[0]


def read_profile(
    events: Sequence[Mapping], model: onnx.ModelProto, warmup_runs: int = _WARMUP_RUNS
) -> Profile:
    """Return the nodes' times from the ``events`` of ONNX Runtime's profile of ``model``.

    The first ``warmup_runs`` inferences are left out, where there are more.
    """
    durations: dict[int, list[int]] = {}
    last: dict[int, Mapping] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL_TIME):
            index = int(event["args"]["node_index"])
            durations.setdefault(index, []).append(event["dur"])
            last[index] = event
    names = _ModuleNames(model)
    ours = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    binary_ops = {op for op in ours if op.startswith(_ON_BITS)}
    nodes = []
    for index, times in durations.items():
        event = last[index]
        name, op = event["name"].removesuffix(_KERNEL_TIME), event["args"]["op_name"]
        kept = times[warmup_runs:] or times
        shapes = (tuple(*entry.values()) for entry in event["args"].get("input_type_shape", ()))
        nodes.append(
            NodeTime(
                node=name,
                op=op,
                module=names.find(name),
                binary=op in binary_ops,
                median_ms=(statistics.median(kept) + _TRUNCATION_US) / 1e3,
                fastest_ms=(min(kept) + _TRUNCATION_US) / 1e3,
                input_shapes=tuple(shapes),
            )
        )
    return Profile(tuple(nodes))


class _ModuleNames:
    """Finds the module of a node, which ONNX Runtime may have renamed and fused with what follows."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._nodes = {node.name: node for node in model.graph.node if node.name}
        self._producers = {output: node for node in model.graph.node for output in node.output}

    def find(self, name: str) -> str:
        """Return the module of the weighted layer in the profiled node ``name``, '' where there is none."""
        base = name.removesuffix(_BLOCKED)
        node = self._producers.get(base) or self._nodes.get(base)
        if base == name and node is not None and not self._weighted(node):
            return ""
        # Behind a fused activation or addition lies the layer itself.
        while node is not None and not self._weighted(node):
            node = self._producers.get(node.input[0]) if node.input else None
        return module_name(node.name) if node is not None else ""

    @staticmethod
    def _weighted(node: onnx.NodeProto) -> bool:
        return node.op_type in ("Conv", "Gemm", "MatMul") or node.domain == DOMAIN
