"""Draws layers.svg and writes layers.csv from the files beside it: python docs/results/openvino/draw.py"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COLOURS = {"bound": "#9aa5b1", "dirnet": "#1f6f8b", "OpenVINO": "#e07a5f"}
FORMS = {"residual": "shortcut, floats and signs out", "bits": "signs out"}
BAR, GAP, HEIGHT, LEFT, TOP = 22, 40, 220, 60, 46
COLUMNS = (
    "date",
    "cpu",
    "isa",
    "form",
    "channels",
    "size",
    "bound_us",
    "dirnet_us",
    "openvino_us",
    "dirnet_by_openvino",
    "share_of_bound",
    "quiet_rounds",
    "dirnet",
    "onnxruntime",
    "openvino",
)


def read(name: str) -> dict[str, Any]:
    """Return a stored result."""
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def rows() -> list[dict[str, Any]]:
    """Return a row per shape and form."""
    stored = read("layers.json")
    versions = stored["machine"]["versions"]
    table = []
    for row in stored["rows"]:
        table.append(
            {
                "date": stored["date"],
                "cpu": stored["machine"]["cpu"],
                "isa": stored["isa"],
                "form": row["form"],
                "channels": row["channels"],
                "size": row["size"],
                "bound_us": round(row["bound_us"], 1),
                "dirnet_us": round(row["dirnet_us"], 1),
                "openvino_us": round(row["openvino_us"], 1),
                "dirnet_by_openvino": round(row["ratio"], 3),
                "share_of_bound": round(row["share_of_bound"], 3),
                "quiet_rounds": row["quiet_rounds"],
                **{name: versions[name] for name in ("dirnet", "onnxruntime", "openvino")},
            }
        )
    return table


def draw(table: list[dict[str, Any]]) -> str:
    """Return the rows as bars: the bound, dirnet and OpenVINO for each shape and form."""
    most = max(row["openvino_us"] for row in table) * 1.1
    width = LEFT + len(table) * (3 * BAR + GAP) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT + TOP + 70}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14">One 3x3 binary convolution, one thread, microseconds '
        f"({table[0]['cpu']}, {table[0]['isa']})</text>",
    ]
    for number, (name, colour) in enumerate(COLOURS.items()):
        x = LEFT + number * 110
        parts.append(f'<rect x="{x}" y="26" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17}" y="36">{name}</text>')
    for tick in range(0, int(most), 50):
        y = TOP + HEIGHT - HEIGHT * tick / most
        parts.append(f'<line x1="{LEFT}" x2="{width - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    for number, row in enumerate(table):
        x = LEFT + 15 + number * (3 * BAR + GAP)
        for place, (key, colour) in enumerate(
            zip(("bound_us", "dirnet_us", "openvino_us"), COLOURS.values(), strict=True)
        ):
            height = HEIGHT * row[key] / most
            left, top = x + place * BAR, TOP + HEIGHT - height
            parts.append(
                f'<rect x="{left}" y="{top:.1f}" width="{BAR - 2}" height="{height:.1f}" fill="{colour}"/>'
            )
            parts.append(
                f'<text x="{left + BAR / 2 - 1}" y="{top - 4:.1f}" text-anchor="middle" font-size="10">'
                f"{row[key]:.0f}</text>"
            )
        middle = x + 1.5 * BAR
        label = f"{row['channels']}, {row['size']}x{row['size']}"
        parts.append(f'<text x="{middle}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{label}</text>')
    for number, (form, title) in enumerate(FORMS.items()):
        count = sum(row["form"] == form for row in table)
        x = LEFT + 15 + (number + 0.5) * count * (3 * BAR + GAP) - GAP / 2
        parts.append(f'<text x="{x}" y="{TOP + HEIGHT + 42}" text-anchor="middle">{title}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Write layers.csv and layers.svg."""
    table = rows()
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    (HERE / "layers.csv").write_text(text.getvalue(), encoding="utf-8")
    (HERE / "layers.svg").write_text(draw(table), encoding="utf-8")


if __name__ == "__main__":
    main()
