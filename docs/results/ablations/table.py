"""Writes README.md beside this file from results.json: python table.py"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from variants import COMMON, RECIPE, VARIANTS

from dirnet_convert.files import write_atomic

HERE = Path(__file__).resolve().parent
# The precision of a row that says nothing else.
USUAL = "bfloat16"


@dataclass(frozen=True)
class Trained:
    """One training of a row: its accuracy, and the arithmetic of what is not binary."""

    top1_percent: float
    precision: str

    def __str__(self) -> str:
        return f"{self.top1_percent:.2f}" + ("" if self.precision == USUAL else f" ({self.precision})")


def by_row() -> dict[tuple[str, int], list[Trained]]:
    """Return each row's trainings, one per seed, by its key and the number of epochs."""
    path = HERE / "results.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    found: dict[tuple[str, int], list[Trained]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["seed"]):
        trained = Trained(row["top1_percent"], row.get("precision", USUAL))
        found[row["variant"], row["epochs"]].append(trained)
    return found


def mean_percent(trainings: list[Trained]) -> float:
    """Return the mean accuracy."""
    return statistics.mean(training.top1_percent for training in trainings)


def table(epochs: int, found: dict[tuple[str, int], list[Trained]]) -> str:
    """Return the rows that were trained over ``epochs`` in Markdown."""
    lines = ["| | top-1, % | against | difference |", "|---|---:|---|---:|"]
    titles = {variant.key: variant.title for variant in VARIANTS}
    for variant in VARIANTS:
        values = found.get((variant.key, epochs))
        if values is None:
            lines.append(f"| {variant.title} | not run | | |")
            continue
        other = found.get((variant.against, epochs))
        cells = [variant.title, ", ".join(map(str, values)), "", ""]
        if other is not None:
            cells[2] = titles[variant.against].removeprefix("+ ")
            cells[3] = f"{mean_percent(values) - mean_percent(other):+.2f}"
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page() -> None:
    """Write the page with a table for each length that was run."""
    found = by_row()
    weights = "DATA/cifar10-resnet20-akamaster.th"
    command = f"python docs/results/ablations/run.py --data-dir DATA --weights {weights}"
    parts = [
        "# What each part is worth: ResNet-20 on CIFAR-10",
        f"Every row is the recipe `{RECIPE}` with `{' '.join(COMMON)}`, in {USUAL} where it says nothing "
        "else, from the same weights, and what [variants.py](variants.py) says. Figures are the last "
        'epoch\'s on all 10,000 test images, one a seed. A "+" stands for what is added to the row that it '
        "is read against.",
        f"`{command}` trains what is missing. Each epoch's accuracy, dates and versions are in results.json. "
        "Rows with DTE and an epsilon above 0 that are dated before 30 November 2026 took the quantile of a "
        "layer's inputs from four of their columns; since then a sample sees all of them.",
    ]
    for epochs in sorted({epochs for _, epochs in found}):
        parts += [f"## {epochs} epochs", table(epochs, found)]
    write_atomic(HERE / "README.md", "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    write_page()
