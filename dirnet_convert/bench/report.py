"""A benchmark's figures as tables and as JSON."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dirnet_convert.bench.engines import TITLES, EngineKind, engine_title
from dirnet_convert.bench.layers import LayerResult
from dirnet_convert.bench.measure import MAX_OTHER_LOAD, Measurement
from dirnet_convert.bench.openvino import RivalCheck
from dirnet_convert.bench.peaks import Peaks
from dirnet_convert.bench.profile import BINARY_LAYERS, NodeTime, Profile, module_name
from dirnet_convert.bench.suite import BenchResult, ThreadResult
from dirnet_convert.files import write_atomic
from dirnet_convert.recipe import Rest

# Since 2, a profile's binary_ms and binary_share leave out the stem, whose arithmetic is float or INT8.
FORMAT = 2
SHOWN_OPERATORS = 8


def to_json(result: BenchResult) -> dict[str, Any]:
    """Return ``result`` as plain values; ratios are FP32's time by the engine's."""
    return {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": dataclasses.asdict(result.machine),
        "isa": result.isa,
        "batch": result.options.batch,
        "seed": result.options.seed,
        "rounds": result.options.measure.rounds,
        "block_ms": result.options.measure.block_ms,
        "rest": str(result.rest),
        "peaks_gmacs_per_second": dataclasses.asdict(result.peaks) if result.peaks else None,
        "file_bytes": {str(kind): size for kind, size in result.file_bytes.items()},
        "notes": list(result.notes),
        "rivals": {str(kind): dataclasses.asdict(check) for kind, check in result.rivals.items()},
        "results": [_thread_json(part, result.rest) for part in result.results],
    }


def write_report(result: BenchResult, path: Path) -> dict[str, Any]:
    """Write ``result`` as JSON to ``path``."""
    report = to_json(result)
    write_atomic(path, json.dumps(report, indent=1) + "\n")
    return report


def tables(result: BenchResult) -> RenderableType:
    """Return ``result`` as tables for a terminal."""
    machine = result.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    cores = f"{machine.cores} processor{'s' if machine.cores > 1 else ''}"
    parts: list[RenderableType] = [
        Text(f"{machine.cpu}, {cores}, {machine.system}; {result.isa} kernels; {versions}"),
        *(Text(note) for note in result.notes),
    ]
    for part in result.results:
        parts += [_engines_table(result, part), _operators_table(part.profiles[EngineKind.BINARY])]
        parts += [Text(rival_sentence(kind, check, part)) for kind, check in result.rivals.items()]
        parts.append(_module_table(part))
        if part.layers:
            parts.append(_layers_table(part, result.peaks))
        parts += [Text(str(layer), style="yellow") for layer in slower_layers(part)]
        note = quietness(part.engines)
        if note:
            parts.append(Text(note, style="yellow"))
    return Group(*parts)


def quietness(measurement: Measurement) -> str:
    """Return a sentence where the machine was not quiet while measuring, or an empty string."""
    if measurement.other_load is None:
        return "This system does not tell what else was running; measure on a machine that does nothing else."
    if measurement.only_quiet:
        return ""
    return (
        f"Not a quiet machine: other processes used {measurement.other_load:.2f} processors at the median, "
        f"and only {measurement.quiet_rounds} of {measurement.rounds} rounds were below {MAX_OTHER_LOAD}. "
        "Quote neither times nor ratios: long calls are interrupted more often than short ones, which "
        "flatters the faster engine. Measure again when nothing else runs."
    )


def rival_sentence(kind: EngineKind, check: RivalCheck, part: ThreadResult) -> str:
    """Return what to know of an engine in OpenVINO beside its time."""
    twin = kind.twin
    text = (
        f"{TITLES[kind]}: outputs differ from {TITLES[twin]} in ONNX Runtime by {check.median:.1e} of "
        f"their root mean square at the median of {check.inputs} inputs, {check.largest:.1e} at most; "
        f"{TITLES[twin]} is {part.engines.ratio(kind, twin):.2f}x as fast"
    )
    if kind is not EngineKind.OPENVINO:
        return f"{text}."
    kernels = ", ".join(f"{count} x {name}" for name, count in check.kernels.items())
    text += f"; binary convolutions there: {kernels or 'none'}"
    names = ", ".join(check.float_layers)
    return (
        f"{text}; binary layers in float there: {names}." if names else f"{text}; no binary layer in float."
    )


def module_times(profiles: dict[EngineKind, Profile]) -> list[tuple[str, float, float]]:
    """Return (module, FP32 ms, binary ms) of every binary layer that both models name, in order."""

    def sums(nodes: tuple[NodeTime, ...]) -> dict[str, float]:
        totals: dict[str, float] = {}
        for node in nodes:
            if node.module:
                totals[node.module] = totals.get(node.module, 0.0) + node.median_ms
        return totals

    ours = [node for node in profiles[EngineKind.BINARY].nodes if node.binary]
    layers = {node.module for node in ours if node.op.startswith(BINARY_LAYERS)}
    binary = sums(tuple(node for node in ours if node.module in layers))
    plain = sums(profiles[EngineKind.FP32].nodes)
    return [(module, plain[module], time) for module, time in binary.items() if module in plain]


@dataclasses.dataclass(frozen=True)
class SlowerLayer:
    """A binary layer that took longer than FP32's; ``times_fp32`` is FP32's time by the binary one's."""

    module: str
    times_fp32: float

    def __str__(self) -> str:
        return (
            f"{self.module}: binary slower than FP32 here ({self.times_fp32:.2g}x): keep it in float with "
            f"--keep '{self.module}'"
        )


def slower_layers(part: ThreadResult) -> tuple[SlowerLayer, ...]:
    """Return the binary layers that lost: inside the network, or alone by the least favourable ratio."""
    lowest: dict[str, float] = {}
    for module, plain, binary in module_times(part.profiles):
        lowest[module] = plain / binary
    for layer in part.layers:
        for node in layer.modules:
            module = module_name(node)
            lowest[module] = min(layer.lowest_ratio, lowest.get(module, math.inf))
    return tuple(SlowerLayer(module, ratio) for module, ratio in lowest.items() if ratio < 1)


def _engines_table(result: BenchResult, part: ThreadResult) -> Table:
    table = Table(
        title=f"batch {result.options.batch}, {part.threads} thread{'s' if part.threads > 1 else ''}; "
        "times in ms"
    )
    table.add_column("engine" if result.rivals else "in ONNX Runtime", no_wrap=True)
    for name in ("median", "quartiles", "best", "img/s", "speed", "MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for timing in part.engines.timings:
        kind = EngineKind(timing.name)
        table.add_row(
            engine_title(kind, result.rest),
            f"{timing.median_ms:.3f}",
            f"{timing.low_ms:.3f}-{timing.high_ms:.3f}",
            f"{timing.min_ms:.3f}",
            f"{1000 * result.options.batch / timing.median_ms:.1f}",
            f"{part.engines.ratio(EngineKind.FP32, kind):.2f}x",
            f"{result.file_bytes[kind] / 1e6:.2f}",
        )
    return table


def _operators_table(profile: Profile) -> Table:
    title = f"Binary model: {100 * profile.binary_share:.0f} % of the time in binary operators"
    table = Table(title=title)
    table.add_column("operator")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    operators = list(profile.by_operator().items())
    for op, time in operators[:SHOWN_OPERATORS]:
        table.add_row(op, f"{time:.3f}", f"{100 * time / profile.total_ms:.1f} %")
    rest = sum(time for _, time in operators[SHOWN_OPERATORS:])
    if rest:
        table.add_row("others", f"{rest:.3f}", f"{100 * rest / profile.total_ms:.1f} %")
    return table


def _module_table(part: ThreadResult) -> Table:
    table = Table(title="Layers inside the networks (ONNX Runtime's profile)")
    table.add_column("layer")
    for name in ("FP32 ms", "binary ms", "ratio"):
        table.add_column(name, justify="right")
    for module, plain, binary in module_times(part.profiles):
        table.add_row(module, f"{plain:.3f}", f"{binary:.3f}", _ratio(plain / binary))
    return table


def _ratio(times_fp32: float) -> Text:
    # One decimal would turn 0.97 into 1.0.
    return Text(f"{times_fp32:.1f}x") if times_fp32 >= 1 else Text(f"{times_fp32:.2g}x", style="yellow")


def _layers_table(part: ThreadResult, peaks: Peaks | None) -> Table:
    caption = (
        "MMAC, GMAC/s: taps inside the image; best: of the calls' best blocks; claim: the smallest of the "
        "three, on a quiet machine only"
    )
    if peaks is not None:
        caption += (
            f"; bound: {peaks.isa}'s binary arithmetic on registers alone, measured in the same rounds. One "
            f"core's GMAC/s so: binary {peaks.binary:.0f}, INT8 {peaks.int8:.0f}, FP32 {peaks.float32:.0f}"
        )
    table = Table(
        title="Layers alone: whole call (with overhead and FP32's reorders) and kernel (without)",
        caption=caption,
    )
    for name in ("layer", "operator"):
        table.add_column(name)
    for name in (
        "used",
        "MMAC",
        "FP32 call/kernel us",
        "binary call/kernel us",
        "ratio call/kernel/best",
        "claim",
        "GMAC/s",
        "of bound",
    ):
        table.add_column(name, justify="right")
    for layer in part.layers:
        table.add_row(
            str(layer.shape),
            layer.shape.op.removeprefix("BinaryConv2d") or "-",
            f"{len(layer.modules)}",
            f"{layer.shape.valid_macs / 1e6:.1f}",
            f"{1e3 * layer.float_call_ms:.0f} / {1e3 * layer.float_kernel_ms:.0f}",
            f"{1e3 * layer.binary_call_ms:.0f} / {1e3 * layer.binary_kernel_ms:.0f}",
            f"{layer.call_ratio:.1f}x / {layer.kernel_ratio:.1f}x / {layer.best_ratio:.1f}x",
            "not quiet" if layer.claim is None else _ratio(layer.claim),
            f"{layer.gmacs_per_second:.0f}",
            "-" if layer.bound_share is None else f"{100 * layer.bound_share:.0f} %",
        )
    return table


def _thread_json(part: ThreadResult, rest: Rest) -> dict[str, Any]:
    engines = part.engines
    return {
        "threads": part.threads,
        "quiet_rounds": engines.quiet_rounds,
        "only_quiet_rounds_counted": engines.only_quiet,
        "other_load_processors": engines.other_load,
        "engines": [
            {
                "engine": str(timing.name),
                "title": engine_title(EngineKind(timing.name), rest),
                "median_ms": timing.median_ms,
                "quartiles_ms": [timing.low_ms, timing.high_ms],
                "min_ms": timing.min_ms,
                "times_fp32": engines.ratio(EngineKind.FP32, timing.name),
                **_twin_json(engines, EngineKind(timing.name)),
            }
            for timing in engines.timings
        ],
        "profiles": {str(kind): _profile_json(profile) for kind, profile in part.profiles.items()},
        "modules": [
            {"module": module, "fp32_ms": plain, "binary_ms": binary}
            for module, plain, binary in module_times(part.profiles)
        ],
        "layers": [_layer_json(layer) for layer in part.layers],
        "slower_than_fp32": [dataclasses.asdict(layer) for layer in slower_layers(part)],
    }


def _twin_json(engines: Measurement, kind: EngineKind) -> dict[str, Any]:
    if kind.twin is None:
        return {}
    return {"twin": str(kind.twin), "twin_speedup": engines.ratio(kind, kind.twin)}


def _profile_json(profile: Profile) -> dict[str, Any]:
    return {
        "total_ms": profile.total_ms,
        "binary_ms": profile.binary_ms,
        "binary_share": profile.binary_share,
        "operators_ms": profile.by_operator(),
        "nodes": [
            {"node": node.node, "op": node.op, "module": node.module, "median_ms": node.median_ms}
            for node in profile.nodes
        ],
    }


def _layer_json(layer: LayerResult) -> dict[str, Any]:
    return {
        "shape": dataclasses.asdict(layer.shape),
        "modules": list(layer.modules),
        "macs": layer.shape.macs,
        "fp32_call_ms": layer.float_call_ms,
        "fp32_kernel_ms": layer.float_kernel_ms,
        "binary_call_ms": layer.binary_call_ms,
        "binary_kernel_ms": layer.binary_kernel_ms,
        "call_ratio": layer.call_ratio,
        "kernel_ratio": layer.kernel_ratio,
        "best_ratio": layer.best_ratio,
        "lowest_ratio": layer.lowest_ratio,
        "claim": layer.claim,
        "valid_macs": layer.shape.valid_macs,
        "gmacs_per_second": layer.gmacs_per_second,
        "bound_gmacs_per_second": layer.bound_gmacs,
        "bound_share": layer.bound_share,
        "quiet": layer.quiet,
    }
