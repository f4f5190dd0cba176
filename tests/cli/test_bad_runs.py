"""Run folders and ONNX files that are missing, damaged or of another stage; stopped and failed work."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import Result

Refused = Callable[..., str]
Invoke = Callable[..., Result]


def test_a_run_of_the_wrong_stage(refused: Refused, pretrained: Path, converted: Path) -> None:
    assert "dirnet convert" in refused(2, "finetune", "--run", pretrained)
    assert "dirnet convert" in refused(2, "export", pretrained)
    assert "dirnet finetune" in refused(2, "pretrain", converted)
    assert "already binarized" in refused(2, "convert", converted)


def test_a_path_where_nothing_is(refused: Refused, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for command in ("convert", "pretrain", "inspect"):
        assert f"There is no run folder {nowhere}" in refused(2, command, nowhere)
    (nowhere / "empty").mkdir(parents=True)
    assert "is not a run folder" in refused(2, "convert", nowhere / "empty")


def test_an_unfinished_pretraining_is_not_converted(refused: Refused, pretrained: Path) -> None:
    config = pretrained / "run.toml"
    config.write_text(config.read_text().replace('stage = "pretrained"', 'stage = "pretraining"'))
    assert f"go on with 'dirnet pretrain {pretrained}'" in refused(2, "convert", pretrained)


@pytest.mark.parametrize("command", ["finetune", "export", "eval"])
def test_a_damaged_run(refused: Refused, converted: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no run")
    for name in ("empty", "file"):
        assert "is not a run folder" in refused(2, command, "--run", tmp_path / name)
    config, model = converted / "run.toml", converted / "model.safetensors"
    good, weights = config.read_text(), model.read_bytes()
    for text, words in (
        ("format = [", "not valid TOML"),
        (good.replace("format = 1", "format = 2"), "newer dirnet"),
        (good.replace("classes = 10", 'classes = "ten"'), "int expected"),
        (good.replace("classes = 10", "clases = 10"), "unknown key 'clases'"),
    ):
        config.write_text(text)
        assert words in refused(2, command, "--run", converted)
    config.write_text(good)
    model.write_bytes(weights[:500])
    assert "model.safetensors" in refused(1, command, "--run", converted)
    model.unlink()
    assert "is missing" in refused(1, command, "--run", converted)


def test_a_damaged_checkpoint(refused: Refused, dirnet: Invoke, converted: Path) -> None:
    (converted / "checkpoint").mkdir()
    (converted / "checkpoint" / "latest.pt").write_bytes(b"no checkpoint")
    assert "--restart" in refused(1, "finetune", "--run", converted)


def test_damaged_onnx_files(refused: Refused, exported: Path, tmp_path: Path) -> None:
    model = exported / "model.onnx"
    for path, options in (
        (model, ()),
        (tmp_path / "alone.onnx", ("--data", "digits", "--data-dir", tmp_path)),
    ):
        path.write_bytes(b"this is no protobuf")
        assert path.name in refused(1, "eval", path, *options)
    assert "model.onnx" in refused(1, "bench", "--run", exported, "--engines", "fp32,binary", "--rounds", 1)
    assert "No file" in refused(2, "eval", tmp_path / "nowhere.onnx")


def _with_packed_weights(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.UINT64)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))
    onnx.save(model, path)


def test_packed_weights_that_do_not_fit(refused: Refused, exported: Path) -> None:
    model = exported / "model.onnx"
    _with_packed_weights(model, lambda words: words[:-1].copy())
    sentence = refused(1, "eval", model, "--engine", "kernels", "--limit", 4)
    assert "BinaryConv2d" in sentence


def test_a_file_alone_without_its_data(refused: Refused, exported: Path, tmp_path: Path) -> None:
    alone = (exported / "model.onnx").rename(tmp_path / "alone.onnx")
    assert "--data" in refused(2, "eval", alone)


@pytest.mark.parametrize(
    ("isa", "words"),
    [("avx1024", "avx1024"), ("neon", "neon")],
)
def test_an_instruction_set_that_is_not_here(exported: Path, isa: str, words: str) -> None:
    from dirnet_convert.runtime.isa import available_isas

    if isa in [str(item) for item in available_isas()]:
        pytest.skip(f"this processor has {isa}")
    # The library reads DIRNET_ISA once in a process.
    command = [sys.executable, "-P", "-m", "dirnet_convert", "bench", "--run", str(exported)]
    command += ["--engines", "fp32,binary", "--rounds", "1"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"DIRNET_ISA": isa}
    )
    assert done.returncode == 1, done
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_bench_for_another_device(
    refused: Refused, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", "")
    sentence = refused(2, "bench", "--run", exported, "--device", "arm64")
    assert "This machine is x86_64" in sentence
    assert "--ssh USER@HOST" in sentence
    assert "apt install qemu-user" in sentence


def test_no_picture_to_predict(refused: Refused, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    assert "text.png cannot be read as an image" in refused(
        1, "predict", tmp_path / "text.png", "--run", exported
    )
    for path in (tmp_path / "nowhere.png", tmp_path):
        assert str(path) in refused(2, "predict", path, "--run", exported)


def test_a_run_finds_its_images_from_any_folder(
    dirnet: Invoke, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (32, 32), (number * 20, 0, 0)).save(tmp_path / "photos" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    options = ("--image-size", 32, "--epochs", 1, "--out", "run", "--json")
    small = ("--set", "pretrain.batch_size=4", "--set", "pretrain.compile=false")
    made = dirnet("pretrain", network, "--data", "folder:photos", *options, *small)
    assert made.exit_code == 0, made.output
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = dirnet("eval", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images"] == 4


def _full_disk(*_arguments: object, **_keywords: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "No space left"), (errno.EACCES, "choose a folder you may write to")]
)
def test_a_place_that_cannot_be_written(
    refused: Refused,
    pretrained_once: Path,
    converted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    words: str,
) -> None:
    def fail(*_arguments: object, **_keywords: object) -> None:
        raise OSError(number, os.strerror(number))

    before = {path: path.read_bytes() for path in converted.rglob("*") if path.is_file()}
    monkeypatch.setattr("tempfile.mkstemp", fail)
    assert words in refused(1, "convert", pretrained_once, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert words in refused(1, "finetune", "--run", converted)
    assert words in refused(1, "export", "--run", converted, "--images", 2)
    assert {path: path.read_bytes() for path in converted.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(refused: Refused, pretrained_once: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert "locked" in refused(1, "convert", pretrained_once, "--out", locked / "out")


def test_a_full_disk_in_a_training_loses_no_run(
    refused: Refused, dirnet: Invoke, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (converted / "model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("dirnet_convert.models.state.save_file", _full_disk)
        assert "No space left" in refused(1, "finetune", "--run", converted, "--json")
    assert (converted / "model.safetensors").read_bytes() == before
    assert not list(converted.rglob("*.part"))
    again = dirnet("finetune", "--run", converted, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["epochs"] == 1


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there")
def test_ctrl_c_in_a_training_and_the_same_command_goes_on(dirnet: Invoke, converted: Path) -> None:
    command = [sys.executable, "-P", "-m", "dirnet_convert", "finetune", "--run", str(converted)]
    command += ["--epochs", "300", "--set", "data.train_limit=64"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        limit = time.monotonic() + 60
        while not (converted / "metrics.jsonl").is_file() and time.monotonic() < limit:
            time.sleep(0.05)
        begun = (converted / "metrics.jsonl").is_file()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert begun, errors
    assert process.returncode == 130, errors
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    lines = len((converted / "metrics.jsonl").read_text().splitlines())
    goes_on = ("finetune", "--run", converted, "--set", "data.train_limit=64", "--epochs", lines + 1)
    result = dirnet(*goes_on)
    assert result.exit_code == 0, result.output
    assert "Going on after step" in result.stdout
    assert len((converted / "metrics.jsonl").read_text().splitlines()) == lines + 1


def test_ctrl_c_after_the_last_step_of_an_epoch_keeps_the_epoch(
    refused: Refused, dirnet: Invoke, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dirnet_convert.cli.training_progress import TerminalObserver

    epoch = 4  # 128 images in batches of 32

    def press(_self: TerminalObserver, report: object) -> None:
        if report.step == epoch:
            os.kill(os.getpid(), signal.SIGINT)

    # Sent while the step is reported, the signal is heard before the next one begins.
    with monkeypatch.context() as patch:
        patch.setattr(TerminalObserver, "stepped", press)
        sentence = refused(130, "finetune", "--run", converted, "--epochs", 2)
    assert sentence == "Stopped at step 4 of 8; the same command goes on from there."
    assert len((converted / "metrics.jsonl").read_text().splitlines()) == 1
    result = dirnet("finetune", "--run", converted, "--json")
    assert json.loads(result.stdout)["epochs"] == 2
    assert len((converted / "metrics.jsonl").read_text().splitlines()) == 2
    monkeypatch.setattr(TerminalObserver, "stepped", press)
    sentence = refused(130, "finetune", "--run", converted, "--restart")
    assert sentence == "Stopped at step 4 of 8; the same command without --restart goes on from there."


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--threads", "2"), "leave --threads"),
        (("--rounds", "3"), "leave --threads"),
        (("--engines", "fp32,binary"), "leave --threads"),
        (("--layers",), "work on the machine itself"),
        (("--cores", "big"), "--cores is for"),
    ],
)
def test_what_an_emulator_does_not_take(
    refused: Refused,
    exported: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("dirnet_convert.bench.devices.missing_tools", lambda _names: ())
    assert words in refused(2, "bench", "--run", exported, "--device", "arm64", *option)


def test_a_stopped_pretraining_is_named_by_its_run(
    refused: Refused, dirnet: Invoke, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dirnet_convert.cli.training_progress import TerminalObserver

    def press(_self: TerminalObserver, report: object) -> None:
        if report.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TerminalObserver, "stepped", press)
        sentence = refused(130, "pretrain", pretrained, "--restart", "--epochs", 2)
    command = shlex.join(["dirnet", "pretrain", str(pretrained)])
    assert sentence.endswith(f"; '{command}' goes on from there.")
    assert json.loads(dirnet(*shlex.split(command)[1:], "--json").stdout)["epochs"] == 2
