"""The page of a run: self-contained HTML, every text from the run escaped."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from dirnet_convert.errors import UsageError
from dirnet_convert.files import write_atomic
from dirnet_convert.recipe import to_dict
from dirnet_convert.report.charts import Chart, Line, draw_chart
from dirnet_convert.report.read import RunFacts, read_run
from dirnet_convert.run import RunFolder

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --rule: #ddd; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #16181c; --rule: #3a3d44; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 1120px; padding: 0 1rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 1rem; }
figure { margin: 0; }
figcaption { font-weight: 600; }
svg text { font-size: 11px; fill: var(--ink); }
svg polyline { fill: none; stroke-width: 1.5; }
svg .grid { stroke: var(--rule); }
.legend { margin: 0; font-size: 13px; }
.legend span { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 .6em; }
table { border-collapse: collapse; font-size: 13px; }
th, td { border-bottom: 1px solid var(--rule); padding: .15rem .7rem .15rem 0; text-align: left; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; font-size: 12px; }
"""
_HELD_OUT = "holdout_"
# The numbers of an epoch's line that have a chart of their own, or none.
_ACCURACY = ("test_", _HELD_OUT)


def write_report_page(run: RunFolder, path: Path) -> RunFacts:
    """Write the page of ``run`` to ``path``; return what it shows.

    Raises:
        UsageError: this is no run folder, or ``path`` is a folder.
        DirnetError: a file of the run is damaged.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the file to write, for example {path / 'report.html'}.")
    facts = read_run(run)
    write_atomic(path, run_page(facts))
    return facts


def run_page(facts: RunFacts) -> str:
    """Return the page of a run."""
    config = facts.config
    title = f"{config.recipe.model.name} on {config.recipe.data.name}"
    body = "\n".join(
        part
        for part in (
            f"<h1>{html.escape(title)}</h1>",
            _summary(facts),
            _curves(facts),
            _plan(facts),
            _sizes(facts),
            _bench(facts),
            f"<h2>Recipe</h2>\n<pre>{html.escape(tomli_w.dumps(to_dict(config.recipe)))}</pre>",
        )
        if part
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _summary(facts: RunFacts) -> str:
    config = facts.config
    rows = [("Stage", str(config.stage)), ("Recipe", config.recipe.title or "of the command line")]
    if facts.epochs:
        last, kept = facts.epochs[-1], _kept(facts.epochs)
        rows.append(("Epochs", f"{last.get('epoch', len(facts.epochs))}"))
        if any(name.startswith(_HELD_OUT) for name in kept):
            rows.append(("Kept epoch", f"{kept.get('epoch')}"))
        rows += [
            (_words(name), f"{value:.2f}")
            for name, value in kept.items()
            if name.startswith(_ACCURACY) and isinstance(value, int | float)
        ]
        seconds = [line["seconds"] for line in facts.epochs if isinstance(line.get("seconds"), int | float)]
        rows.append(("Training", f"{sum(seconds) / 60:.1f} minutes, without the tests"))
    if facts.earlier_epochs:
        rows.append(("Not shown", f"epochs of trainings before this one: {facts.earlier_epochs}"))
    rows.append(("Versions", ", ".join(f"{name} {version}" for name, version in config.versions.items())))
    return _table((), rows)


def _kept(epochs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the line of the epoch whose weights the run holds, as the training chose it."""
    scored = [line for line in epochs if isinstance(_held_out_score(line), int | float)]
    return max(scored, key=_held_out_score) if scored else epochs[-1]


def _held_out_score(line: dict[str, Any]) -> Any:
    return next((value for name, value in line.items() if name.startswith(_HELD_OUT)), None)


def _curves(facts: RunFacts) -> str:
    drawn = [draw_chart(chart) for chart in _charts(facts.epochs)]
    shown = "\n".join(figure for figure in drawn if figure)
    return f'<h2>Training</h2>\n<div class="curves">\n{shown}\n</div>' if shown else ""


def _charts(epochs: Sequence[dict[str, Any]]) -> Iterable[Chart]:
    names = list(epochs[-1]) if epochs else []
    # The parts of the loss stand between the whole and the scores; one that is left away is 0 throughout.
    losses = list(
        itertools.takewhile(
            lambda n: not n.startswith(_ACCURACY), itertools.dropwhile(lambda n: n != "train_loss", names)
        )
    )
    losses = [name for name in losses if any(line.get(name) for line in epochs)]
    yield Chart("Loss", "", _lines(epochs, losses))
    yield Chart("Accuracy", "%", _lines(epochs, [name for name in names if name.startswith(_ACCURACY)]))
    yield Chart("Learning rate", "", _lines(epochs, ["lr"]))
    yield Chart("t of the estimators' schedule", "", _lines(epochs, ["t"]), logarithmic=True)
    for kind in ("weights", "inputs"):
        yield Chart(f"Share of {kind} that receive gradient", "", _receiving(epochs, kind))
    yield Chart("Time of an epoch", "s", _lines(epochs, ["seconds", "data_wait_s"]))
    yield Chart("Throughput", "images/s", _lines(epochs, ["images_per_s"]))


def _lines(epochs: Sequence[dict[str, Any]], names: Sequence[str]) -> tuple[Line, ...]:
    lines = []
    for name in names:
        points = tuple(
            (float(line["epoch"]), float(line[name]))
            for line in epochs
            if isinstance(line.get(name), int | float) and isinstance(line.get("epoch"), int)
        )
        if points:
            lines.append(Line(_words(name), points))
    return tuple(lines)


def _receiving(epochs: Sequence[dict[str, Any]], kind: str) -> tuple[Line, ...]:
    points: dict[str, list[tuple[float, float]]] = {}
    for line in epochs:
        for layer in line.get("receiving", ()):
            points.setdefault(str(layer["name"]), []).append((float(line["epoch"]), float(layer[kind])))
    return tuple(Line(name, tuple(values)) for name, values in points.items())


def _plan(facts: RunFacts) -> str:
    layers = facts.plan.get("layers", [])
    if not layers:
        return ""
    bits = {layer["name"]: layer for layer in facts.plan.get("input_bits", [])}
    rows = []
    for layer in layers:
        entropy = bits.get(layer["name"], {}).get("entropy_bits")
        rows.append(
            (
                layer["name"],
                f"{layer['kind']} {layer['shape']}",
                layer["weights"],
                layer["macs"],
                "binary" if layer["decision"] == "binarize" else "kept",
                "" if entropy is None else f"{entropy:.3f}",
                layer["reason"],
            )
        )
    headings = ("layer", "kind", "weights", "multiply-adds", "", "entropy of input bits", "reason")
    return f"<h2>Plan</h2>\n{_table(headings, rows)}"


def _sizes(facts: RunFacts) -> str:
    rows = [(name, f"{size / 1e6:.3f}") for name, size in facts.file_bytes.items()]
    float_bytes, binary_bytes = facts.file_bytes.get("teacher.onnx"), facts.file_bytes.get("model.onnx")
    if float_bytes and binary_bytes:
        rows.append(("times smaller", f"{float_bytes / binary_bytes:.2f}"))
    return f"<h2>Files</h2>\n{_table(('file', 'MB'), rows)}" if rows else ""


def _bench(facts: RunFacts) -> str:
    bench = facts.bench
    if not bench.get("results"):
        return ""
    machine = bench.get("machine", {})
    parts = [f"<h2>Benchmark</h2>\n<p>{html.escape(str(machine.get('cpu', '')))}, "]
    parts.append(
        f"{html.escape(str(bench.get('isa', '')))} kernels, batch {html.escape(str(bench['batch']))}, "
    )
    parts.append(f"{html.escape(str(bench.get('date', ''))[:10])}</p>\n")
    for result in bench["results"]:
        rows = [
            (engine["title"], f"{engine['median_ms']:.3f}", f"{engine['times_fp32']:.2f}")
            for engine in result["engines"]
        ]
        parts.append(f"<h3>Threads: {html.escape(str(result['threads']))}</h3>\n")
        parts.append(_table(("engine", "median ms", "times as fast as FP32"), rows))
    return "".join(parts)


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    lines = [f"<tr>{head}</tr>"] if headings else []
    for row in rows:
        cells = "".join(_cell(value) for value in row)
        lines.append(f"<tr>{cells}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{html.escape(str(value))}</td>"


def _words(name: str) -> str:
    """Return the name of a number in metrics.jsonl as words."""
    words = {"lr": "learning rate", "images_per_s": "images per second", "seconds": "the whole epoch"}
    words |= {"data_wait_s": "waiting for images", "train_loss": "loss that is minimized"}
    return words.get(name, name.replace("_percent", ", %").replace("_", " "))
