"""The record of a sweep as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dirnet_convert.coverage.candidates import Library
from dirnet_convert.coverage.sweep import Entry, SweepRecord
from dirnet_convert.coverage.trial import Outcome, Route, TrialResult

_TITLES = {
    Library.TORCHVISION: "torchvision, every classifier",
    Library.TIMM: "timm, the smallest network of each family",
}
_INTRODUCTION = """\
Every network below went the whole way with random weights: converted and calibrated, trained one step with
its original as the teacher (the loss is finite, and a gradient reaches the weights of every binary layer),
exported to ONNX, and compared with PyTorch layer by layer on two images, in stock ONNX Runtime and with the
kernels.

- A family is a file of timm's; the network with the fewest weights stands for it, timm's own test networks
  aside.
- A network counts as convolutional where a forward pass runs a two-dimensional convolution that does not see
  the image itself, is not the last of the operations with weights, sums over several channels (so is not
  depthwise), and sees more than one pixel (so is no gate). The others (transformers, MLPs) have nothing that
  this method binarizes unasked; they are listed, and count neither for nor against.
- "Multiply-adds" is the share of the network's multiply-adds that became binary, where there is a graph to
  count them in. Without one ("module tree") the layers are swapped and nothing around them is changed.
- Parameters that a network starts as constants got some noise, since a zero would hide what it multiplies.
- Each network's seed is the CRC-32 of its name.
"""


@dataclass(frozen=True)
class Count:
    """How many networks of a library were tried, and what came of them."""

    tried: int
    convolutional: int
    ok: int

    @property
    def share_percent(self) -> float | None:
        """The share of the convolutional networks that went the whole way, None where there are none."""
        return 100 * self.ok / self.convolutional if self.convolutional else None


def count(entries: Iterable[Entry], library: Library) -> Count:
    """Count what came of the networks of ``library`` (``ALL`` for both)."""
    results = [
        e.result
        for e in entries
        if e.result is not None and (library is Library.ALL or e.candidate.library is library)
    ]
    tallies = {outcome: sum(r.outcome is outcome for r in results) for outcome in Outcome}
    ok = tallies[Outcome.OK]
    return Count(len(results), ok + tallies[Outcome.FAILED], ok)


def markdown(record: SweepRecord) -> str:
    """Return the page: how it was made, the counts, what fails and why, and a table of all."""
    tried = [entry.result for entry in record.entries if entry.result is not None]
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    left = len(record.entries) - len(tried)
    sections = [
        "# Coverage",
        _INTRODUCTION.rstrip(),
        f"Made on {record.date} by\n\n```\n{record.command}\n```\n\nwith {versions}.",
        *([f"{left} networks were not tried yet."] if left else []),
        "## Result",
        _count_table(record),
        "## What fails",
        _failures([result for result in tried if result.outcome is Outcome.FAILED]),
        "## Not convolutional",
        _others([result for result in tried if result.outcome is Outcome.NOT_CONVOLUTIONAL]),
        "## All networks",
        _all([entry for entry in record.entries if entry.result is not None]),
    ]
    return "\n\n".join(sections) + "\n"


def _count_table(record: SweepRecord) -> str:
    rows = []
    for library, title in _TITLES.items():
        c = count(record.entries, library)
        if c.tried:
            share = "" if c.share_percent is None else f"{c.share_percent:.1f} %"
            rows.append((title, c.tried, c.convolutional, c.ok, share))
    return _table(("networks", "tried", "convolutional", "went the whole way", "share"), rows, "lrrrr")


def _failures(results: list[TrialResult]) -> str:
    if not results:
        return "Nothing."
    rows = [(r.model, str(r.stage), r.reason.replace("|", "\\|")) for r in results]
    return _table(("network", "fails at", "why"), rows, "lll")


def _others(results: list[TrialResult]) -> str:
    if not results:
        return "None."
    return ", ".join(result.model for result in results) + "."


def _all(entries: list[Entry]) -> str:
    rows = []
    for entry in entries:
        r = entry.result
        assert r is not None
        share = "" if r.mac_share is None else f"{100 * r.mac_share:.1f} %"
        layers = f"{r.binary_layers} of {r.layers}" if r.layers else ""
        way = "" if r.route is None else str(r.route)
        family = entry.candidate.family
        rows.append((r.model, family, str(r.outcome), layers, share, way, r.image_size, f"{r.seconds:.0f}"))
    headings = ("network", "family", "outcome", "binary layers", "multiply-adds", "way", "pixels", "seconds")
    return _table(headings, rows, "lllrrlrr")


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]], alignment: str) -> str:
    rules = ["---:" if side == "r" else "---" for side in alignment]
    lines = [headings, rules, *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def summary(record: SweepRecord) -> str:
    """Return one sentence: how many of the convolutional networks went the whole way."""
    c = count(record.entries, Library.ALL)
    share = "" if c.share_percent is None else f" ({c.share_percent:.1f} %)"
    trees = sum(e.result is not None and e.result.route is Route.MODULE_TREE for e in record.entries)
    return (
        f"{c.ok} of {c.convolutional} convolutional networks went the whole way{share}, {trees} of them over "
        f"their module tree; {c.tried - c.convolutional} others are not convolutional."
    )
