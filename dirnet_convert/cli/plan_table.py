"""The table of layers that convert and inspect print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from dirnet_convert.convert.policy import LayerPlan

# Below this many columns a table with a column for each fact breaks every cell into pieces.
WIDE_TERMINAL = 130
_NAMED = 4


def plan_table(plan: Sequence[LayerPlan], extra: Mapping[str, Mapping[str, str]], width: int) -> Table:
    """Return a row per layer for a terminal of ``width`` columns; ``extra`` maps a column's heading to its
    text per layer name.

    On narrow terminals the shape stands below the name, and what would change a decision below its reason.
    """
    wide = width >= WIDE_TERMINAL
    table = Table(title="Layers", title_justify="left", header_style="bold")
    total = sum(layer.macs for layer in plan)
    for heading in ("layer", "kind", "shape") if wide else ("layer",):
        table.add_column(heading, overflow="fold")
    for heading in ("MMAC", "share", "bits", *extra):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("decision", "to change") if wide else ("decision",):
        table.add_column(heading, overflow="fold")
    for layer in plan:
        table.add_row(
            *(_place_wide(layer) if wide else _place_narrow(layer)),
            f"{layer.macs / 1e6:.1f}" if total else "?",
            f"{100 * layer.macs / total:.1f} %" if total else "?",
            "1" if layer.decision == "binarize" else "32",
            *(column.get(layer.name, "") for column in extra.values()),
            *_decision(layer, wide=wide),
        )
    return table


def _place_wide(layer: LayerPlan) -> tuple[str, str, str]:
    return escape(layer.name), escape(layer.kind), escape(layer.shape)


def _place_narrow(layer: LayerPlan) -> tuple[str]:
    kind = "" if layer.kind in ("Conv2d", "Linear") else f"{layer.kind} "
    return (f"{escape(layer.name)}\n[dim]{escape(kind + layer.shape)}[/dim]",)


def _decision(layer: LayerPlan, *, wide: bool) -> tuple[str, ...]:
    word = "[green]binarize[/green]" if layer.decision == "binarize" else "keep"
    caution = f" [yellow]({escape(layer.caution)})[/yellow]" if layer.caution else ""
    text = f"{word}: {escape(layer.reason)}{caution}"
    if wide:
        return text, escape(layer.remedy)
    # The name stands in the first column already.
    remedy = escape(layer.remedy.replace(f"'{layer.name}'", "NAME"))
    return (f"{text}\n[dim]{remedy}[/dim]" if remedy else text,)


def plan_totals(plan: Sequence[LayerPlan]) -> str:
    """Return one sentence: how many layers, weights and operations become binary."""
    chosen = [layer for layer in plan if layer.decision == "binarize"]
    weights, all_weights = sum(p.weights for p in chosen), sum(p.weights for p in plan) or 1
    macs, all_macs = sum(p.macs for p in chosen), sum(p.macs for p in plan)
    operations = f", {100 * macs / all_macs:.1f} % of the multiply-adds" if all_macs else ""
    share = 100 * weights / all_weights
    return f"{len(chosen)} of {len(plan)} layers are binarized: {share:.1f} % of the weights{operations}."


def trace_lines(failure: str, untraced: Mapping[str, str]) -> list[str]:
    """Return a sentence for a network that has no graph, and one for each cause of modules ``untraced`` in a
    graph."""
    if failure:
        return [
            f"The network could not be traced ({failure}); the module tree was used: activations and "
            "shortcuts stay as they are, and distillation of representations is off."
        ]
    by_cause: dict[str, list[str]] = {}
    for name, cause in untraced.items():
        by_cause.setdefault(cause, []).append(name)
    return [
        f"Could not be traced ({cause}): {_some(names)}. Activations and shortcuts inside stay as they are."
        for cause, names in by_cause.items()
    ]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
