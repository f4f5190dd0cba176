"""Two processes train as one with the doubled batch does, and go on exactly where they were."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, distributed, fx, nn

from dirnet_convert.errors import UsageError
from dirnet_convert.finetune.loop import train
from dirnet_convert.finetune.ranks import Ranks
from dirnet_convert.finetune.tasks import task_of
from dirnet_convert.recipe import DistillOptions

ROOT = Path(__file__).resolve().parents[2]
TIMES = ("seconds", "images_per_s", "data_wait_s")


def _train(tiny: ModuleType, processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*start, tiny.__file__, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def _rows(folder: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [0, 1])
def test_two_processes_have_the_curve_of_one_with_the_doubled_batch(
    tiny: ModuleType, tmp_path: Path, compiled: int
) -> None:
    for processes, batch in ((1, 16), (2, 8)):
        done = _train(tiny, processes, tmp_path / str(processes), compiled, 0, 0, batch)
        assert done.returncode == 0, done.stdout + done.stderr
    one, two = _rows(tmp_path / "1"), _rows(tmp_path / "2")
    assert len(one) == len(two) == 3
    for ours, theirs in zip(two, one, strict=True):
        assert ours["step"] == theirs["step"] and ours["lr"] == theirs["lr"]
        for name in ("train_loss", "label_loss", "logit_loss", "rbd_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name
    assert one[-1]["train_loss"] < one[0]["train_loss"]
    # Two of forty test images may lie on the other side of a decision.
    assert abs(one[-1]["test_top1_percent"] - two[-1]["test_top1_percent"]) <= 5.0
    assert len(list(tmp_path.glob("2/**/*.part"))) == 0


@pytest.mark.slow
def test_two_processes_that_were_killed_go_on_bit_for_bit(tiny: ModuleType, tmp_path: Path) -> None:
    """With dropout, augmentation and batch statistics, which differ from process to process."""
    assert _train(tiny, 2, tmp_path / "whole", 0).returncode == 0
    for step in (2, 6):
        assert _train(tiny, 2, tmp_path / "killed", 0, int(signal.SIGKILL), step).returncode != 0
    assert _train(tiny, 2, tmp_path / "killed", 0).returncode == 0
    assert _rows(tmp_path / "whole") == _rows(tmp_path / "killed")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    # Of another number of processes the batches would be others.
    with pytest.raises(UsageError, match="the number of processes = 2, not 1"):
        train(tiny.tiny_job(tmp_path / "whole"))


@pytest.mark.slow
def test_an_interrupted_process_stops_all_at_the_same_step(tiny: ModuleType, tmp_path: Path) -> None:
    stopped = _train(tiny, 2, tmp_path / "run", 0, int(signal.SIGINT), 3)
    assert stopped.returncode != 0
    assert stopped.stdout.count("Stopped at step 3 of 12; the same command goes on from there.") == 2
    assert _train(tiny, 2, tmp_path / "run", 0).returncode == 0
    assert _train(tiny, 2, tmp_path / "whole", 0).returncode == 0
    assert _rows(tmp_path / "whole") == _rows(tmp_path / "run")


class _WithUnused(nn.Module):
    """A network as a person may write one: without a graph, and with a layer that it does not use."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.unused = network, nn.Linear(2, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.network(x)


@pytest.mark.parametrize("case", ["representations alone", "an unused layer", "all used"])
def test_parameters_without_gradient_do_not_stop_several_processes(
    tiny: ModuleType, tmp_path: Path, case: str
) -> None:
    job = tiny.tiny_job(tmp_path, ranks=Ranks(0, 2, torch.device("cpu")))
    job.teacher_forward.requires_grad_(False)
    if case == "an unused layer":
        job = dataclasses.replace(job, student_forward=_WithUnused(job.student_forward))
    elif case == "representations alone":
        network = tiny.WithRepresentations(tiny.TinyNetwork(binary=False))
        distill = DistillOptions(label_weight=0.0, logit_weight=0.0, rbd_weight=1.0)
        job = dataclasses.replace(job, student_forward=fx.symbolic_trace(network), distill=distill)
    # One process stands for two: what it waits for at its second step is the same.
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        step = task_of(job).step(lambda _sentence: None)
        # Where there are none, looking for them costs time, and PyTorch warns of that.
        assert step.find_unused_parameters == (case != "all used")
        for _ in range(2):
            loss, _ = step(torch.randn(4, 3, 8, 8), torch.arange(4))
            loss.backward()
    finally:
        distributed.destroy_process_group()
