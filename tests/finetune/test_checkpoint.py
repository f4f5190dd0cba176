"""A checkpoint comes back as it was written; a damaged one is a sentence."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest
import torch

from dirnet_convert.errors import DirnetError
from dirnet_convert.finetune.checkpoint import (
    CHECKPOINT_FORMAT,
    Best,
    Checkpoint,
    EpochSums,
    checkpoint_path,
    read_checkpoint,
    write_checkpoint,
)
from dirnet_convert.run import RunFolder

SEED = 4


def _written(run: RunFolder) -> Path:
    checkpoint = Checkpoint(
        identity={"finetune.lr": 0.1, "seed": 0},
        step=3,
        lines=1,
        sums=EpochSums(images=32, loss=1.5, parts=[1.0, 0.5]),
        student={"weight": torch.arange(4.0)},
        optimizer={"state": {}, "param_groups": [{"lr": 0.1}]},
        average=None,
        cpu_random=torch.get_rng_state()[:16],
        cuda_random=[],
        best=Best(epoch=1, score=50.0),
    )
    write_checkpoint(run, checkpoint)
    return checkpoint_path(run)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    _written(RunFolder(tmp_path))
    read = read_checkpoint(RunFolder(tmp_path))
    assert read is not None and (read.step, read.lines, read.best) == (3, 1, Best(1, 50.0))
    assert read.sums == EpochSums(images=32, loss=1.5, parts=[1.0, 0.5])
    assert torch.equal(read.student["weight"], torch.arange(4.0))


def test_damage_anywhere_is_one_sentence(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    path = _written(run)
    content = path.read_bytes()
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    found = 0
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(chance.choice((1, 1, 4, 20))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        if chance.random() < 0.2:
            del damaged[chance.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        try:
            assert isinstance(read_checkpoint(run), Checkpoint)
        except DirnetError as error:
            assert "--restart" in str(error)
            found += 1
    assert found > 100


@pytest.mark.parametrize(
    "values",
    [
        {"sums": {}},
        {"sums": 3},
        {"sums": {"unknown": 1}},
        {"sums": {}, "best": {"epoch": 1}},
        {"sums": {}, "unknown": 1},
        {},
    ],
)
def test_other_contents_are_one_sentence(tmp_path: Path, values: dict[str, object]) -> None:
    path = checkpoint_path(RunFolder(tmp_path))
    path.parent.mkdir()
    torch.save({"format": CHECKPOINT_FORMAT, **values}, path)
    with pytest.raises(DirnetError, match=r"damaged.*--restart"):
        read_checkpoint(RunFolder(tmp_path))


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x80\x02\xff", pickle.dumps({"format": 1, "sums": print})]
)
def test_what_is_no_checkpoint_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = checkpoint_path(RunFolder(tmp_path))
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DirnetError, match=r"damaged.*--restart"):
        read_checkpoint(RunFolder(tmp_path))


def test_another_versions_checkpoint_is_told_apart(tmp_path: Path) -> None:
    path = checkpoint_path(RunFolder(tmp_path))
    path.parent.mkdir()
    torch.save({"format": CHECKPOINT_FORMAT + 1}, path)
    with pytest.raises(DirnetError, match="another version"):
        read_checkpoint(RunFolder(tmp_path))
