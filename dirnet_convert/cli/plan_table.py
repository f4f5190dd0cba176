"""The table of layers that convert and inspect print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from dirnet_convert.convert.policy import LayerPlan


def plan_table(plan: Sequence[LayerPlan], extra: Mapping[str, Mapping[str, str]]) -> Table:
    """Return a row per layer; ``extra`` maps a column's heading to its text per layer name."""
    table = Table(title="Layers", title_justify="left", header_style="bold")
    for heading in ("layer", "shape"):
        table.add_column(heading, overflow="fold")
    table.add_column("MMAC", justify="right")
    for heading in extra:
        table.add_column(heading, overflow="fold")
    table.add_column("decision", overflow="fold")
    for layer in plan:
        chosen = layer.decision == "binarize"
        table.add_row(
            layer.name,
            layer.shape if layer.kind == "Conv2d" else f"{layer.kind} {layer.shape}",
            f"{layer.macs / 1e6:.1f}" if layer.macs else "?",
            *(column.get(layer.name, "") for column in extra.values()),
            f"[green]binarize[/green]: {escape(layer.reason)}" if chosen else f"keep: {escape(layer.reason)}",
        )
    return table


def plan_totals(plan: Sequence[LayerPlan]) -> str:
    """Return one sentence: how many layers, weights and operations become binary."""
    chosen = [layer for layer in plan if layer.decision == "binarize"]
    weights, all_weights = sum(p.weights for p in chosen), sum(p.weights for p in plan) or 1
    macs, all_macs = sum(p.macs for p in chosen), sum(p.macs for p in plan)
    operations = f", {100 * macs / all_macs:.1f} % of the multiply-adds" if all_macs else ""
    share = 100 * weights / all_weights
    return f"{len(chosen)} of {len(plan)} layers are binarized: {share:.1f} % of the weights{operations}."
