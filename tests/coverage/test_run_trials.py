"""Many networks, each in a process of its own: a crash or a hang is one line of the record."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from dirnet_convert.coverage.candidates import Candidate, Library
from dirnet_convert.coverage.isolated import Limits
from dirnet_convert.coverage.report import count, markdown, summary
from dirnet_convert.coverage.sweep import (
    SweepRecord,
    load_record,
    new_record,
    resumed,
    run_sweep,
    run_trials,
    save_record,
)
from dirnet_convert.coverage.trial import Outcome, Route, Stage, TrialResult
from dirnet_convert.errors import UsageError

NETWORKS = """
import os
import time

import torch
from torch import nn


def good(num_classes=10):
    middle = (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4), *middle, nn.Linear(8, 10))


def crash(num_classes=10):
    os.abort()


def hang(num_classes=10):
    time.sleep(600)


def flood(num_classes=10):
    return [torch.ones(1 << 20) for _ in range(1 << 20)]


def leave(num_classes=10):
    os._exit(3)
"""


def _listed(tmp_path: Path, *names: str) -> list[Candidate]:
    path = tmp_path / "nets.py"
    path.write_text(NETWORKS)
    return [Candidate(f"{path}:{name}", Library.TIMM, "nets") for name in names]


@pytest.mark.slow
def test_what_ends_a_process_ends_nothing_else(tmp_path: Path) -> None:
    listed = _listed(tmp_path, "crash", "leave", "flood", "good")
    results = {c.model.rpartition(":")[2]: r for c, r in run_trials(listed, 2, Limits(120, 4))}
    assert {name: result.outcome for name, result in results.items()} == {
        "crash": Outcome.FAILED,
        "leave": Outcome.FAILED,
        "flood": Outcome.FAILED,
        "good": Outcome.OK,
    }
    assert "SIGABRT" in results["crash"].reason
    assert "exit code 3" in results["leave"].reason
    assert "memory" in results["flood"].reason.lower()
    assert all(r.stage is Stage.BUILD for name, r in results.items() if name != "good")


def test_a_network_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    ((_, result),) = run_trials(_listed(tmp_path, "hang"), 1, Limits(seconds=2))
    assert (result.outcome, result.reason) == (Outcome.FAILED, "not done after 2 s")


def test_stopping_early_ends_what_runs(tmp_path: Path) -> None:
    import multiprocessing

    trials = run_trials(_listed(tmp_path, "crash", "hang"), 2, Limits(seconds=60))
    assert next(trials)[0].model.endswith("crash")
    trials.close()
    assert not multiprocessing.active_children()


def _result(model: str, outcome: Outcome, **more: object) -> TrialResult:
    return TrialResult(model=model, outcome=outcome, seed=1, seconds=2.0, **more)


def _record() -> SweepRecord:
    listed = [
        Candidate("a", Library.TORCHVISION, "x"),
        Candidate("b", Library.TORCHVISION, "x"),
        Candidate("timm:c", Library.TIMM, "y"),
        Candidate("timm:d", Library.TIMM, "z"),
    ]
    results = [
        _result("a", Outcome.OK, layers=3, binary_layers=1, mac_share=0.5, route=Route.GRAPH, error=1e-6),
        _result("b", Outcome.FAILED, stage=Stage.EXPORT, reason="a | b"),
        _result("timm:c", Outcome.NOT_CONVOLUTIONAL),
        None,
    ]
    record = new_record(Library.ALL, listed, "dirnet inspect --all")
    entries = [dataclasses.replace(e, result=r) for e, r in zip(record.entries, results, strict=True)]
    return dataclasses.replace(record, entries=tuple(entries))


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    save_record(_record(), tmp_path / "record.json")
    assert load_record(tmp_path / "record.json") == _record()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"library": "x"}', '{"networks": [1]}'])
def test_another_file_is_no_record(tmp_path: Path, content: str) -> None:
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(UsageError, match="no record of a sweep"):
        load_record(tmp_path / "record.json")


def test_a_sweep_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(listed: list[Candidate], jobs: int) -> object:
        for candidate in listed:
            asked.append(candidate.model)
            yield candidate, _result(candidate.model, Outcome.OK)

    monkeypatch.setattr("dirnet_convert.coverage.sweep.run_trials", run)
    seen: list[int] = []
    record = run_sweep(_record(), 1, lambda now, result: seen.append(count(now.entries, Library.ALL).ok))
    # What went the whole way, or never will, is not tried again.
    assert asked == ["b", "timm:d"]
    assert seen == [2, 3]
    assert [entry.result.outcome for entry in record.entries if entry.result] == [
        Outcome.OK,
        Outcome.OK,
        Outcome.NOT_CONVOLUTIONAL,
        Outcome.OK,
    ]


def test_other_versions_or_lists_are_not_gone_on_with() -> None:
    assert resumed(_record(), Library.ALL) == _record()
    with pytest.raises(UsageError, match="--library all"):
        resumed(_record(), Library.TIMM)
    old = dataclasses.replace(_record(), versions={**_record().versions, "torch": "1.0"})
    with pytest.raises(UsageError, match=r"torch 1\.0"):
        resumed(old, Library.ALL)


def test_the_page_counts_and_names_what_fails() -> None:
    page = markdown(_record())
    assert "| torchvision, every classifier | 2 | 2 | 1 | 50.0 % |" in page
    assert "| timm, the smallest network of each family | 1 | 0 | 0 |  |" in page
    assert "| b | export | a \\| b |" in page
    assert "| a | x | ok | 1 of 3 | 50.0 % | graph | 0 | 2 |" in page
    assert "1 networks were not tried yet" in page
    assert "dirnet inspect --all" in page
    assert summary(_record()).startswith("1 of 2 convolutional networks went the whole way (50.0 %)")


def test_the_record_is_plain_json(tmp_path: Path) -> None:
    save_record(_record(), tmp_path / "record.json")
    networks = json.loads((tmp_path / "record.json").read_text())["networks"]
    assert [network["model"] for network in networks] == ["a", "b", "timm:c", "timm:d"]
    assert networks[0]["result"]["outcome"] == "ok" and networks[3]["result"] is None
