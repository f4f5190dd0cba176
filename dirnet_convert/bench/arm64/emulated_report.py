"""The emulated figures as tables and as JSON, labelled as what they are."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dirnet_convert.bench.arm64.emulated import EmulatedResult
from dirnet_convert.bench.engines import TITLES
from dirnet_convert.files import write_atomic

FORMAT = 1
LABEL = (
    "Emulated: instructions that were counted, not time. Fewer instructions are no speed-up by themselves; "
    "how fast a board is can only be measured on it."
)
_MODEL_LABEL = "Modelled: cycles of llvm-mca's processor models, everything in the nearest cache"


def to_json(result: EmulatedResult) -> dict[str, Any]:
    """Return ``result`` as plain values."""
    return {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "emulated": True,
        "label": LABEL,
        "emulator": result.emulator,
        "cpu": result.cpu,
        "runtime": result.runtime,
        "versions": result.versions,
        "image_size": result.image_size,
        "instructions": {str(kind): total for kind, total in result.totals.items()},
        "networks": {str(kind): dataclasses.asdict(item) for kind, item in result.networks.items()},
        "operators": {
            str(kind): [dataclasses.asdict(item) for item in counts]
            for kind, counts in result.operators.items()
        },
        "layers": [
            {**dataclasses.asdict(layer), "times_fewer_instructions": layer.times_fewer}
            for layer in result.layers
        ],
        "modelled": [dataclasses.asdict(loop) for loop in result.modelled],
    }


def write_report(result: EmulatedResult, path: Path) -> dict[str, Any]:
    """Write ``result`` as JSON to ``path``."""
    report = to_json(result)
    write_atomic(path, json.dumps(report, indent=1) + "\n")
    return report


def tables(result: EmulatedResult) -> RenderableType:
    """Return ``result`` as tables for a terminal."""
    parts: list[RenderableType] = [
        Text(LABEL, style="yellow"),
        Text(f"{result.emulator} as {result.cpu}; {result.runtime}; one image of {result.image_size} pixels"),
        _operators_table(result),
        Text(_equality(result)),
        _layers_table(result),
    ]
    if result.modelled:
        parts.append(_modelled_table(result))
    return Group(*parts)


def _operators_table(result: EmulatedResult) -> Table:
    table = Table(title="Instructions of one inference, emulated", caption="in millions, by operator")
    for name in ("network", "operator"):
        table.add_column(name)
    for name in ("nodes", "instructions"):
        table.add_column(name, justify="right")
    for kind, counts in result.operators.items():
        table.add_row(
            TITLES[kind], "all", str(sum(item.nodes for item in counts)), _millions(result.totals[kind])
        )
        for item in counts:
            table.add_row("", item.op, str(item.nodes), _millions(item.instructions))
    return table


def _equality(result: EmulatedResult) -> str:
    parts = [
        f"{TITLES[kind]} network: {100 * item.equal_share:.0f} % of the outputs are this machine's to the "
        f"last bit, the others differ by {item.largest_difference:.1e} of the root mean square at most"
        for kind, item in result.networks.items()
    ]
    return (
        f"{'; '.join(parts)} (float layers round differently here and there). Each of the "
        f"{len(result.layers)} distinct binary layers below gives the same output, bit for bit."
    )


def _layers_table(result: EmulatedResult) -> Table:
    table = Table(
        title="Binary layers alone, instructions counted under emulation",
        caption="per 128 MAC: the whole binary layer's instructions, those on vector registers in brackets",
    )
    table.add_column("layer")
    for name in ("used", "MMAC", "FP32 M", "binary M", "times fewer", "per 128 MAC"):
        table.add_column(name, justify="right")
    for layer in result.layers:
        units = layer.macs / 128
        table.add_row(
            layer.layer,
            str(len(layer.modules)),
            f"{layer.macs / 1e6:.1f}",
            _millions(layer.fp32_instructions),
            _millions(layer.binary_instructions),
            f"{layer.times_fewer:.1f}",
            f"{layer.binary_instructions / units:.2f} ({layer.vector_instructions / units:.2f})",
        )
    return table


def _modelled_table(result: EmulatedResult) -> Table:
    table = Table(title=_MODEL_LABEL, caption=result.modelled[0].model)
    table.add_column("inner loop")
    table.add_column("processor")
    for name in ("MAC", "instructions", "on vectors", "cycles", "MAC/cycle"):
        table.add_column(name, justify="right")
    for loop in result.modelled:
        table.add_row(
            loop.name,
            loop.cpu,
            str(loop.macs),
            str(loop.instructions),
            str(loop.vector_instructions),
            f"{loop.cycles:.1f}",
            f"{loop.macs_per_cycle:.1f}",
        )
    return table


def _millions(instructions: int) -> str:
    return f"{instructions / 1e6:.3f}"
