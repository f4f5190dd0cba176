"""The run folder: where it lies, which is the newest, and what it refuses."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from dirnet_convert.errors import UsageError
from dirnet_convert.recipe import Recipe
from dirnet_convert.run import (
    RUN_FORMAT,
    RunConfig,
    RunFolder,
    Stage,
    filled_run,
    new_run,
    open_run,
    runs_root,
)

CONFIG = RunConfig(
    recipe=Recipe(seed=3),
    classes=10,
    class_names=("a", "b"),
    image_size=32,
    mean=(0.5, 0.5, 0.5),
    std=(1.0, 1.0, 1.0),
    binarized=("layer1.0.conv1",),
    stage=Stage.FINETUNED,
    versions={"torch": "2"},
)


def _make(root: Path, name: str, time: float) -> RunFolder:
    run = RunFolder(root / name)
    run.write_config(CONFIG)
    os.utime(run.config_path, (time, time))
    return run


def test_a_configuration_comes_back_as_it_went(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "r")
    run.write_config(CONFIG)
    assert run.read_config() == CONFIG


def test_the_newest_run_is_opened(runs_below_tmp: Path) -> None:
    _make(runs_below_tmp, "z", 1000)
    newest = _make(runs_below_tmp, "a", 2000)
    (runs_below_tmp / "not-a-run").mkdir()
    assert open_run(None) == newest
    assert open_run(runs_below_tmp / "z").path.name == "z"


def test_no_run_is_said_so(tmp_path: Path, runs_below_tmp: Path) -> None:
    with pytest.raises(UsageError, match="No run below"):
        open_run(None)
    with pytest.raises(UsageError, match="No run folder"):
        open_run(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="not a run folder"):
        open_run(tmp_path / "empty")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((f"format = {RUN_FORMAT}", f"format = {RUN_FORMAT + 1}"), "newer dirnet"),
        ((f"format = {RUN_FORMAT}", 'format = "new"'), "int expected"),
        (("classes = 10", ""), "'classes' is missing"),
        (("classes = 10", "classes = [10"), "not valid TOML"),
        (("classes = 10", "clases = 10"), "did you mean 'classes'"),
        (('stage = "finetuned"', 'stage = "half"'), "none of pretraining, pretrained"),
    ],
)
def test_a_damaged_configuration_is_a_sentence(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    run = RunFolder(tmp_path)
    run.write_config(CONFIG)
    text = run.config_path.read_text()
    assert change[0] in text
    run.config_path.write_text(text.replace(*change))
    with pytest.raises(UsageError, match=words):
        run.read_config()


def test_a_new_run_takes_a_free_name(runs_below_tmp: Path) -> None:
    runs = [new_run("digits-net", None) for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    for run in runs:
        assert run.path.parent == runs_below_tmp and run.path.name.startswith("digits-net-")
        assert not list(run.path.iterdir())


@pytest.mark.parametrize("existed", [True, False])
def test_a_run_that_fails_leaves_the_disk_as_it_was(tmp_path: Path, existed: bool) -> None:
    out = tmp_path / "out"
    if existed:
        out.mkdir()
    with pytest.raises(KeyboardInterrupt), filled_run("n", out) as run:
        run.source_dir.mkdir()
        (run.source_dir / "net.py").write_text("x = 1")
        run.write_config(CONFIG)
        raise KeyboardInterrupt
    assert out.exists() == existed and (not existed or not list(out.iterdir()))


def test_two_commands_with_one_folder_do_not_mix(tmp_path: Path) -> None:
    with filled_run("n", tmp_path / "out") as first:
        first.write_config(CONFIG)
        with pytest.raises(UsageError, match="holds a run already"), filled_run("n", tmp_path / "out"):
            pass
    assert first.read_config() == CONFIG


def test_a_demos_runs_count_among_the_newest(runs_below_tmp: Path) -> None:
    _make(runs_below_tmp, "a", 2000)
    inner = _make(runs_below_tmp / "demo-1", "binary", 3000)
    assert open_run(None) == inner


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").write_text("mine")
    for taken in (full, full / "x"):
        with pytest.raises(UsageError, match="not empty"):
            new_run("n", taken)
    assert (full / "x").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert new_run("n", tmp_path / "empty").path == tmp_path / "empty"


def test_the_root_of_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert runs_root() == tmp_path / "runs"
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("DIRNET_RUNS")
        else:
            monkeypatch.setenv("DIRNET_RUNS", unset)
        assert runs_root() == Path("runs")


def test_every_file_lies_in_the_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    paths = [getattr(run, name) for name, value in vars(RunFolder).items() if isinstance(value, property)]
    assert len(paths) == len(set(paths)) >= 10
    assert all(path.parent == tmp_path for path in paths)
    assert dataclasses.is_dataclass(run)
