"""Writes the tables of docs/networks.md from the figures stored beside this file: python table.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from networks import NETWORKS, Network

from dirnet_convert.files import write_atomic

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "networks.md"
MISSING = "not measured"


def stored(network: Network) -> dict[str, Any]:
    """Return what was measured of a network, by stage; {} where nothing was."""
    path = HERE / f"{network.key}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def files_row(network: Network) -> list[str]:
    """Return the cells on layers, shares and sizes."""
    found = stored(network).get("files")
    if found is None:
        return [network.title, MISSING, "", "", "", "", "", ""]
    return [
        network.title,
        str(found["image_size"]),
        f"{found['binary_layers']} of {found['layers']}",
        f"{100 * found['binary_macs'] / found['macs']:.1f}",
        f"{100 * found['binary_weights'] / found['weights']:.1f}",
        f"{found['fp32_bytes'] / 1e6:.2f}",
        f"{found['binary_bytes'] / 1e6:.2f}",
        f"{found['fp32_bytes'] / found['binary_bytes']:.1f}",
    ]


def latency_row(network: Network) -> list[str]:
    """Return the cells on times; a mark where other processes disturbed the measurement."""
    found = stored(network).get("latency")
    if found is None:
        return [network.title, MISSING, "", "", "", "", ""]
    result = found["results"][0]
    engines = {engine["engine"]: engine for engine in result["engines"]}
    times = [f"{engines[name]['median_ms']:.2f}" if name in engines else "" for name in ENGINES]
    speeds = [f"{engines[name]['times_fp32']:.2f}" if name in engines else "" for name in ENGINES[1:]]
    quiet = f"{result['quiet_rounds']} of {found['rounds']}"
    return [network.title, *times, *speeds, quiet if result["only_quiet_rounds_counted"] else f"{quiet} (!)"]


def training_row(network: Network) -> list[str]:
    """Return the cells on the digits; the last two are of the second training."""
    found, general = stored(network).get("training"), stored(network).get("training_general")
    if found is None:
        return [network.title, MISSING, "", "", "", "", "", "", ""]
    return [
        network.title,
        str(found["edge"]),
        f"{found['images']:,}",
        f"{found['fp32_epochs']} + {found['binary_epochs']}",
        f"{found['fp32_top1_percent']:.1f}",
        f"{found['converted_top1_percent']:.1f}",
        f"{found['finetuned_top1_percent']:.1f}",
        f"{general['fp32_top1_percent']:.1f}" if general else MISSING,
        f"{general['finetuned_top1_percent']:.1f}" if general else "",
    ]


ENGINES = ("fp32", "int8", "binary")
TABLES = {
    "files": (
        (
            "network",
            "image edge",
            "binary layers",
            "multiply-adds, %",
            "weights, %",
            "FP32 file, MB",
            "binary file, MB",
            "times smaller",
        ),
        files_row,
    ),
    "latency": (
        (
            "network",
            "FP32, ms",
            "INT8, ms",
            "binary, ms",
            "INT8, times FP32",
            "binary, times FP32",
            "quiet rounds",
        ),
        latency_row,
    ),
    "training": (
        (
            "network",
            "image edge",
            "images",
            "epochs FP32 + binary",
            "FP32, %",
            "converted, %",
            "fine-tuned, %",
            "FP32, second training, %",
            "fine-tuned, %",
        ),
        training_row,
    ),
}


def table(name: str) -> str:
    """Return one table in Markdown."""
    heads, row = TABLES[name]
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *(row(network) for network in NETWORKS)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def update_page() -> None:
    """Replace what stands between each table's markers."""
    text = PAGE.read_text(encoding="utf-8")
    for name in TABLES:
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{table(name)}\n{end}{after}"
    write_atomic(PAGE, text)


if __name__ == "__main__":
    update_page()
