"""Draws summary.svg from the figures stored beside this file: python docs/results/draw.py"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
_ENGINES = ("fp32", "int8", "binary")
RESNET20 = "cifar10-resnet20-60-epochs"


def read(name: str) -> dict:
    """Return a stored result."""
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def rows(title: str, file: str, accuracy: dict[str, float], names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return a row for each engine of ``names`` in one benchmark, one thread, batch 1."""
    bench = read(file)
    result = next(part for part in bench["results"] if part["threads"] == 1)
    table = []
    for engine in result["engines"]:
        name = engine["engine"]
        if name not in names:
            continue
        table.append(
            (
                title,
                engine["title"],
                f"{accuracy[name]:.2f}" if name in accuracy else "",
                f"{engine['median_ms']:.3f}",
                f"{engine['times_fp32']:.2f}x",
                f"{bench['file_bytes'][name] / 1e6:.2f}",
            )
        )
        title = ""
    return table


def main() -> None:
    """Write summary.svg."""
    accuracy = {
        name: read(f"{RESNET20}/eval-{file}.json")["top1_percent"]
        for name, file in (("fp32", "fp32"), ("binary", "kernels"), ("stock", "stock"))
    }
    bench = read("openvino/resnet18.json")
    machine, versions = bench["machine"], bench["machine"]["versions"]
    table = Table(
        title="dirnet: one thread, batch 1, in ONNX Runtime",
        caption=", ".join(
            (
                f"{machine['cpu']} ({bench['isa']} kernels)",
                f"ONNX Runtime {versions['onnxruntime']}",
                bench["date"][:10],
            )
        ),
        header_style="bold",
    )
    for heading in ("network", "engine"):
        table.add_column(heading)
    for heading in ("top-1, %", "median ms", "speed", "file, MB"):
        table.add_column(heading, justify="right")
    for index, group in enumerate(
        (
            rows("ResNet-20, CIFAR-10", f"{RESNET20}/bench.json", accuracy, (*_ENGINES, "stock")),
            rows("ResNet-18, 224 x 224", "openvino/resnet18.json", {}, _ENGINES),
            rows("INT8 rest", "openvino/resnet18-int8-rest.json", {}, ("binary",)),
        )
    ):
        if index:
            table.add_section()
        for row in group:
            table.add_row(*row)
    console = Console(record=True, width=86, file=io.StringIO())
    console.print(table)
    drawing = console.export_svg(title="dirnet bench")
    # The picture must not fetch a font from elsewhere; any monospaced one serves.
    drawing = re.sub(r"@font-face \{.*?\}", "", drawing, flags=re.DOTALL).replace("Fira Code", "Consolas")
    (HERE / "summary.svg").write_text(drawing, encoding="utf-8")


if __name__ == "__main__":
    main()
