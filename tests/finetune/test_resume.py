"""A training that was killed, stopped or extended goes on as if nothing had happened."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.finetune.checkpoint import checkpoint_path, drop_checkpoint, read_checkpoint
from dirnet_convert.finetune.loop import train
from dirnet_convert.finetune.observer import SilentObserver, StepReport
from dirnet_convert.run import RunFolder

ROOT = Path(__file__).resolve().parents[2]
SEED = 3
TIMES = ("seconds", "images_per_s", "data_wait_s")


def _run_script(
    tiny: ModuleType, folder: Path, compiled: bool, *signal_at: int
) -> subprocess.CompletedProcess[str]:
    command = _command(tiny, folder, compiled, *signal_at)
    return subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=300)


def _command(tiny: ModuleType, folder: Path, compiled: bool, *signal_at: int) -> list[str]:
    return [sys.executable, tiny.__file__, str(folder), str(int(compiled)), *map(str, signal_at)]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def _metrics(folder: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def _check_equal(ours: Path, theirs: Path) -> None:
    assert _metrics(ours) == _metrics(theirs)
    first, second = load_file(ours / "model.safetensors"), load_file(theirs / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_killed_training_goes_on_bit_for_bit(tiny: ModuleType, tmp_path: Path, compiled: bool) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert _run_script(tiny, whole, compiled).returncode == 0
    # In the middle of the second epoch, then again near the end of it.
    for step in (11, 15):
        assert _run_script(tiny, killed, compiled, signal.SIGKILL, step).returncode == -signal.SIGKILL
        assert not list(killed.rglob("*.part"))
    assert _run_script(tiny, killed, compiled).returncode == 0
    _check_equal(whole, killed)


@pytest.mark.slow
def test_training_killed_from_outside_at_any_moment_goes_on_bit_for_bit(
    tiny: ModuleType, tmp_path: Path
) -> None:
    """Unlike a process's own signal after a step, these arrive in passes, updates and half-written files."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert _run_script(tiny, whole, False).returncode == 0
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    # From the first step on, which the first checkpoint shows, a few steps at a time.
    deaths = 0
    while deaths < 4:
        before = _saved_file(killed)
        process = subprocess.Popen(
            _command(tiny, killed, False), env=_environment(), stdout=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 120
            while _saved_file(killed) == before and process.poll() is None:
                assert time.monotonic() < deadline, "no step in two minutes"
                time.sleep(0.001)
            time.sleep(chance.uniform(0.0, 0.03))
        finally:
            process.kill()
            code = process.wait()
        if code == 0:
            break
        deaths += 1
    assert deaths >= 2
    assert _run_script(tiny, killed, False).returncode == 0
    assert not list(killed.rglob("*.part"))
    _check_equal(whole, killed)


def _saved_file(folder: Path) -> int:
    """Return the time of the last checkpoint, or 0."""
    path = checkpoint_path(RunFolder(folder))
    return path.stat().st_mtime_ns if path.is_file() else 0


def test_interrupt_writes_a_checkpoint_and_exits_with_130(tiny: ModuleType, tmp_path: Path) -> None:
    stopped = _run_script(tiny, tmp_path / "run", False, signal.SIGINT, 5)
    assert stopped.returncode == 130
    assert "Stopped at step 5 of 24; the same command goes on from there." in stopped.stdout
    assert "Traceback" not in stopped.stderr
    saved = read_checkpoint(tiny.tiny_job(tmp_path / "run").run)
    assert saved is not None and saved.step == 5 and saved.sums.images == 5 * tiny.BATCH


class _Stop(Exception):
    pass


class _CrashAt(SilentObserver):
    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, report: StepReport) -> None:
        if report.step == self.step:
            raise _Stop


def test_lines_after_the_checkpoint_are_cut_off(tiny: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(_Stop):
        train(tiny.tiny_job(tmp_path / "a"), _CrashAt(12))
    with open(tmp_path / "a" / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "train_loss": 9.9}\n{"epoch": 3, "tra')
    train(tiny.tiny_job(tmp_path / "a"))
    train(tiny.tiny_job(tmp_path / "b"))
    _check_equal(tmp_path / "a", tmp_path / "b")


def test_finished_training_says_so_and_can_be_extended(tiny: ModuleType, tmp_path: Path) -> None:
    first = train(tiny.tiny_job(tmp_path))
    assert not first.already_finished and first.epochs == 3
    before = (tmp_path / "model.safetensors").read_bytes()
    again = train(tiny.tiny_job(tmp_path))
    assert again.already_finished and again.scores == first.scores
    assert (tmp_path / "model.safetensors").read_bytes() == before
    longer = dataclasses.replace(tiny.OPTIONS, epochs=4)
    extended = train(tiny.tiny_job(tmp_path, options=longer))
    assert not extended.already_finished and extended.epochs == 4
    assert [row["epoch"] for row in _metrics(tmp_path)] == [1, 2, 3, 4]


def test_other_options_than_the_checkpoints_are_refused(tiny: ModuleType, tmp_path: Path) -> None:
    train(tiny.tiny_job(tmp_path))
    other = dataclasses.replace(tiny.OPTIONS, lr=0.01, epochs=5)
    with pytest.raises(UsageError, match=r"finetune\.lr = 0\.05, not 0\.01.*--restart"):
        train(tiny.tiny_job(tmp_path, options=other))
    estimator = dataclasses.replace(tiny.ESTIMATOR, epsilon=0.3)
    with pytest.raises(UsageError, match=r"estimator\.epsilon"):
        train(tiny.tiny_job(tmp_path, estimator=estimator))
    drop_checkpoint(tiny.tiny_job(tmp_path).run)
    train(tiny.tiny_job(tmp_path, options=other))
    assert len(_metrics(tmp_path)) == 3 + 5


def test_damaged_checkpoint_is_one_sentence(tiny: ModuleType, tmp_path: Path) -> None:
    job = tiny.tiny_job(tmp_path)
    train(job)
    path = checkpoint_path(job.run)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DirnetError, match=r"damaged.*--restart"):
        train(tiny.tiny_job(tmp_path))


def test_checkpoint_is_read_without_running_code(tiny: ModuleType, tmp_path: Path) -> None:
    job = tiny.tiny_job(tmp_path)
    train(job)
    values = torch.load(checkpoint_path(job.run), weights_only=True)
    assert {"identity", "step", "student", "optimizer", "average", "cpu_random", "sums"} <= values.keys()
    assert "conv1.input_estimator.quantile" in values["student"]


def _fill_disk(monkeypatch: pytest.MonkeyPatch, path: Path, when: Callable[[], bool]) -> None:
    """From ``when`` on let the file that is to become ``path`` find no space."""
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has a device that is always full")
    make = tempfile.mkstemp

    def full(**options: str) -> tuple[int, str]:
        descriptor, name = make(**options)
        if options["prefix"] == f".{path.name}." and when():
            os.unlink(name)
            os.symlink("/dev/full", name)
        return descriptor, name

    monkeypatch.setattr("tempfile.mkstemp", full)


@pytest.mark.parametrize("minutes", [0.0, 1e9])
def test_a_full_disk_at_the_first_epochs_end_loses_nothing(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float
) -> None:
    options = dataclasses.replace(tiny.OPTIONS, checkpoint_minutes=minutes)
    train(tiny.tiny_job(tmp_path / "whole", options=options))
    job = tiny.tiny_job(tmp_path / "full", options=options)
    job.run.metrics_path.parent.mkdir()
    job.run.metrics_path.write_text('{"epoch": 1, "of": "an earlier training"}\n')
    with monkeypatch.context() as patch:
        # The epoch's weights have replaced those that the training began with.
        _fill_disk(patch, checkpoint_path(job.run), when=job.run.model_path.is_file)
        with pytest.raises(DirnetError, match=r"latest\.pt.*space"):
            train(job)
    assert not list(job.run.path.rglob("*.part"))
    saved = read_checkpoint(job.run)
    assert saved is not None and saved.step == (7 if minutes == 0.0 else 0)
    again = tiny.tiny_job(tmp_path / "full", options=options)
    # As a command builds it: with the weights that are in the run by now.
    again.student.load_state_dict(load_file(job.run.model_path))
    train(again)
    lines = job.run.metrics_path.read_text().splitlines(keepends=True)
    job.run.metrics_path.write_text("".join(lines[1:]))
    _check_equal(tmp_path / "whole", tmp_path / "full")


def test_before_its_first_step_a_training_is_bound_to_no_options(tiny: ModuleType, tmp_path: Path) -> None:
    first = dataclasses.replace(tiny.OPTIONS, optimizer="adamw", batch_size=8, ema_decay=0.0)
    with pytest.raises(_Stop):
        train(tiny.tiny_job(tmp_path / "a", options=first), _CrashAt(1))
    saved = read_checkpoint(tiny.tiny_job(tmp_path / "a").run)
    assert saved is not None and saved.step == 0
    train(tiny.tiny_job(tmp_path / "a"))
    train(tiny.tiny_job(tmp_path / "b"))
    _check_equal(tmp_path / "a", tmp_path / "b")
