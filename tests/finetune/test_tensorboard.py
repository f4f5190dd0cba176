"""The curves that TensorBoard reads are those of metrics.jsonl."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dirnet_convert.errors import UsageError
from dirnet_convert.finetune.interrupt import StoppedError
from dirnet_convert.finetune.loop import train
from dirnet_convert.finetune.observer import Observers
from dirnet_convert.finetune.tensorboard import TensorBoardObserver


def _curves(folder: Path) -> dict[str, dict[int, float]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]
    }


def test_curves_of_a_stopped_training_that_went_on(tiny: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for stop in (tiny.SignalAt(2, 11), None):
        with contextlib.closing(TensorBoardObserver(tmp_path / "curves")) as curves:
            try:
                train(tiny.tiny_job(tmp_path), Observers(curves, *([stop] if stop else [])))
            except StoppedError:
                assert stop is not None
    curves = _curves(tmp_path / "curves")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sorted(curves["step/loss"]) == list(range(1, 25))
    for name in ("train_loss", "test_top1_percent", "lr", "t", "rbd_loss", "data_wait_s"):
        assert curves[f"epoch/{name}"] == {row["step"]: pytest.approx(row[name]) for row in rows}


def test_missing_package_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"dirnet-convert\[tensorboard\]"):
        TensorBoardObserver(tmp_path)
