"""What a training says on the terminal, and several processes that torchrun starts on the command line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from dirnet_convert.cli import training_progress
from dirnet_convert.cli.training_progress import epochs_words, training_observer
from dirnet_convert.finetune.observer import EpochReport, StepReport

ROOT = Path(__file__).resolve().parents[2]


def _said(**changes: object) -> str:
    values = {
        "epoch": 2,
        "step": 20,
        "train_loss": 1.25,
        "losses": {"label_loss": 1.25},
        "scores": {"test_top1_percent": 61.5},
        "held_out": {},
        "lr": 0.05,
        "t": 0.5,
        "images_per_s": 100.0,
        "data_wait_s": 0.1,
        "seconds": 60.0,
    }
    text = io.StringIO()
    with training_observer(Console(file=text, width=200), quiet=False) as observer:
        observer.started(0, 40, 4)
        observer.finished_epoch(EpochReport(**(values | changes)))
    return text.getvalue()


def test_an_epochs_line_says_where_time_went_only_where_it_matters() -> None:
    line = "epoch 2/4  loss 1.2500  test top-1 61.50 %  lr 0.05  t 0.5  100 images/s  60 s"
    plain = _said()
    assert line in plain and "waiting" not in plain and "held out" not in plain
    assert f"{line}, 20 s of it waiting for images" in _said(data_wait_s=20.0)
    assert "held out top-1 70.00 %  test top-1 61.50 %" in _said(held_out={"holdout_top1_percent": 70.0})


@pytest.mark.parametrize("terminal", [False, True])
def test_a_log_file_has_a_line_a_minute_where_a_terminal_has_a_bar(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 25))
    monkeypatch.setattr(training_progress.time, "monotonic", lambda: float(next(clock)))
    text = io.StringIO()
    console = Console(file=text, width=200, force_terminal=terminal)
    with training_observer(console, quiet=False) as observer:
        observer.started(10, 40, 4)
        for step in range(11, 18):
            observer.stepped(StepReport(step, 40, 2, 1.25, 64))
    lines = [line for line in text.getvalue().splitlines() if line.startswith("epoch 2/4  step")]
    if terminal:
        assert lines == []
        return
    assert [line.split("  loss")[0] for line in lines] == ["epoch 2/4  step 13/40", "epoch 2/4  step 16/40"]
    assert all("loss 1.250" in line and "images/s" in line and line.endswith(" left") for line in lines)


def test_one_epoch_is_no_epochs() -> None:
    assert (epochs_words(0), epochs_words(1), epochs_words(12)) == ("0 epochs", "1 epoch", "12 epochs")


@pytest.mark.slow
def test_torchrun_trains_a_run_and_one_process_speaks(converted: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]
    options = ("--run", str(converted), "--epochs", "1", "--set", "finetune.batch_size=16", "--json")
    done = subprocess.run(
        [*start, "dirnet_convert", "finetune", *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    rows = [json.loads(line) for line in (converted / "metrics.jsonl").read_text().splitlines()]
    finetuned = [row for row in rows if row["stage"] == "finetune"]
    assert len(finetuned) == 1 and finetuned[0]["test_top1_percent"] == answer["test_top1_percent"]
    # 128 images in steps of twice 16.
    assert finetuned[0]["step"] == 4
