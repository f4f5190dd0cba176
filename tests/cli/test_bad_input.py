"""What a person can get wrong with models, data, weights and options: one sentence, the right code."""

from __future__ import annotations

import logging
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

Refused = Callable[..., str]
Invoke = Callable[..., Result]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("convert", "resnet81", "--data", "digits"), "did you mean 'resnet18'"),
        (("convert", "timm:resnet81", "--data", "digits"), "timm has no network 'resnet81'"),
        (("inspect", "mobilenetv2"), "did you mean 'mobilenet_v2'"),
        (("inspect", "nowhere.py:small"), "No file nowhere.py"),
        (("pretrain", "resnet20", "--data", "digitz"), "did you mean 'digits'"),
        (("pretrain", "resnet20"), "--data"),
        (("convert", "resnet20", "--data", "digits", "--weights", "default"), "no published weights"),
        (("convert", "resnet20", "--data", "digits", "--weights", "none"), "pretrained"),
        (("convert", "resnet20", "--data", "digits", "--weights", "nowhere.pth"), "nowhere.pth"),
        (("convert", "resnet18", "--data", "digits"), "1000 classes"),
        (("convert", "resnet20", "--recipe", "digits-resnet2"), "did you mean 'digits-resnet20'"),
        (("convert", "resnet20", "--recipe", "nowhere.toml"), "nowhere.toml"),
        (("recipes", "digits-resnet2"), "did you mean 'digits-resnet20'"),
        (("recipes", "nowhere.toml"), "nowhere.toml"),
        (("pretrain", "resnet20", "--data", "digits", "--set", "finetune.learning_rate=1"), "learning_rate"),
        (("pretrain", "resnet20", "--data", "digits", "--set", "pretrain.epoch=1"), "did you mean 'epochs'"),
        (("pretrain", "resnet20", "--data", "digits", "--set", "pretrain.epochs=many"), "int expected"),
        (("pretrain", "resnet20", "--data", "digits", "--set", "pretrain"), "section.key=value"),
        (("finetune",), "No run below"),
        (("export",), "No run below"),
        (("bench",), "No run below"),
        (("eval",), "No run below"),
        (("finetune", "--run", "nowhere"), "No run folder nowhere"),
        (("finetune", "nowhere"), "No run folder nowhere"),
        (("export", "nowhere"), "No run folder nowhere"),
        (("bench", "nowhere"), "No run folder nowhere"),
        (("report", "nowhere"), "No run folder nowhere"),
        (("finetune", "nowhere", "--run", "nowhere"), "Name the run once"),
        (("eval", "nowhere", "--run", "nowhere"), "Name the run once"),
        (("predict", "nowhere.png"), "nowhere.png"),
        (("bench", "--threads", "0"), "at least 1"),
    ],
)
def test_names_that_do_not_exist(refused: Refused, arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(2, *arguments)


@pytest.mark.parametrize("command", ["convert", "finetune", "export", "bench", "pretrain", "eval", "predict"])
def test_an_unknown_option(dirnet: Invoke, command: str) -> None:
    result = dirnet(command, "--wieghts", "x")
    assert result.exit_code == 2
    assert "No such option" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pretrain.epochs", "-1"),
        ("pretrain.lr", "nan"),
        ("pretrain.lr", "inf"),
        ("pretrain.batch_size", "0"),
        ("pretrain.batch_size", "100000"),
        ("pretrain.momentum", "1.5"),
        ("pretrain.warmup_epochs", "inf"),
        ("pretrain.optimizer", "sgdd"),
        ("pretrain.schedule", "cosin"),
        ("data.train_limit", "-1"),
        ("data.image_size", "-1"),
        ("data.mean", "[0.5]"),
        ("data.std", "[0.0, 0.0, 0.0]"),
        ("seed", "-1"),
    ],
)
def test_values_out_of_range_in_a_training(
    refused: Refused, network: str, runs_below_tmp: Path, key: str, value: str
) -> None:
    options = ("--data", "digits", "--epochs", "1", "--set", "pretrain.compile=false", "--json")
    if key == "pretrain.epochs":
        options = ("--data", "digits", "--json")
    sentence = refused(2, "pretrain", network, *options, "--set", f"{key}={value}")
    assert key.rpartition(".")[2] in sentence or value in sentence
    # No half-made run is left to become the newest one.
    assert not list(runs_below_tmp.glob("*"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("estimator.epsilon", "1.0"),
        ("estimator.epsilon", "-0.1"),
        ("estimator.t_min", "0.0"),
        ("estimator.quantile_steps", "0"),
        ("estimator.window", "nan"),
        ("distill.temperature", "0.0"),
        ("distill.label_weight", "-1.0"),
        ("finetune.epochs", "0"),
        ("finetune.optimizer", "sgdd"),
        ("finetune.batch_size", "100000"),
    ],
)
def test_values_out_of_range_in_a_fine_tuning(
    refused: Refused, converted: Path, key: str, value: str
) -> None:
    before = (converted / "run.toml").read_bytes()
    sentence = refused(2, "finetune", "--run", converted, "--set", f"{key}={value}")
    assert key.partition(".")[2] in sentence or value in sentence
    assert (converted / "run.toml").read_bytes() == before


@pytest.mark.parametrize(
    ("key", "value"),
    [("convert.calibration_images", "0"), ("estimator.epsilon", "2.0"), ("convert.shortcut", "orignal")],
)
def test_values_out_of_range_in_a_conversion(
    refused: Refused, pretrained_once: Path, tmp_path: Path, key: str, value: str
) -> None:
    sentence = refused(2, "convert", pretrained_once, "--out", tmp_path / "out", "--set", f"{key}={value}")
    assert key.partition(".")[2] in sentence
    assert not (tmp_path / "out").exists()


def _pictures(folder: Path, *classes: str) -> None:
    from PIL import Image

    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8)).save(folder / name / f"{number}.png")


def test_data_folders_that_are_none(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "empty").mkdir()
    _pictures(tmp_path / "one", "cat")
    _pictures(tmp_path / "differ" / "train", "cat", "dog")
    _pictures(tmp_path / "differ" / "val", "cat", "cow")
    start = ("pretrain", "resnet20", "--weights", "none", "--data")
    for name in ("nowhere", "file"):
        assert f"No folder {tmp_path / name}" in refused(2, *start, f"folder:{tmp_path / name}")
    assert "at least two" in refused(2, *start, f"folder:{tmp_path / 'empty'}")
    assert "at least two" in refused(2, *start, f"folder:{tmp_path / 'one'}")
    assert "'cow', 'dog'" in refused(2, *start, f"folder:{tmp_path / 'differ'}")
    for name in ("nowhere", "file", "empty", "one"):
        place = ("--data-dir", tmp_path / name)
        assert "--download" in refused(2, *start, "cifar10", *place)
        assert "n01440764" in refused(2, *start, "imagenet", *place)


def test_weights_that_do_not_fit_are_named(refused: Refused, network: str, tmp_path: Path) -> None:
    from dirnet_convert.models.catalog import find_model

    state = find_model(network).build(10).state_dict()
    state.pop("0.1.0.weight")
    state["stranger.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "other.pth")
    start = ("convert", network, "--data", "digits", "--image-size", 32, "--out", tmp_path / "out")
    sentence = refused(1, *start, "--weights", tmp_path / "other.pth")
    assert "missing 0.1.0.weight" in sentence
    assert "unknown stranger.weight" in sentence
    for name in ("broken.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"\x80\x02no weights at all")
        assert name in refused(1, *start, "--weights", tmp_path / name)
    (tmp_path / "folder.pth").mkdir()
    assert "folder.pth" in refused(2, *start, "--weights", tmp_path / "folder.pth")
    assert not (tmp_path / "out").exists()


def _no_network(*_arguments: object, **_keywords: object) -> None:
    raise urllib.error.URLError(OSError(-3, "Temporary failure in name resolution"))


def test_downloads_without_a_network(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    heard = []

    def no_hub(*_: object, **__: object) -> None:
        heard.append(logging.getLogger("huggingface_hub.utils._http").isEnabledFor(logging.WARNING))
        _no_network()

    monkeypatch.setattr("timm.models._builder.load_pretrained", no_hub)
    monkeypatch.chdir(tmp_path)
    out = ("--out", tmp_path / "out")
    sentence = refused(1, "pretrain", "resnet18", "--data", "digits", *out)
    assert "could not be downloaded" in sentence
    assert "--weights" in sentence
    sentence = refused(1, "pretrain", "timm:resnet18", "--data", "digits", *out)
    assert "could not be downloaded" in sentence
    assert heard == [False]
    sentence = refused(1, "pretrain", "resnet20", "--data", "cifar10", "--download", *out)
    assert "Downloading CIFAR-10" in sentence
    assert not (tmp_path / "out").exists()


def test_a_network_with_nothing_to_binarize(refused: Refused, network: str, tmp_path: Path) -> None:
    from dirnet_convert.models.catalog import find_model

    name = network.replace(":small", ":all_float")
    torch.save(find_model(name).build(10).state_dict(), tmp_path / "weights.pth")
    sentence = refused(
        2, "convert", name, "--data", "digits", "--image-size", 32, "--weights", tmp_path / "weights.pth"
    )
    assert "Nothing to binarize" in sentence
    assert "first layer" in sentence


@pytest.mark.parametrize(
    ("option", "glob", "words"),
    [
        ("--binarize", "3.weight", "No layer matches '3.weight'"),
        ("--binarize", "0.9.*", "No layer matches '0.9.*'"),
        ("--keep", "conv1", "No layer matches 'conv1'"),
    ],
)
def test_layers_that_cannot_be_chosen(
    refused: Refused, pretrained_once: Path, tmp_path: Path, option: str, glob: str, words: str
) -> None:
    for command in (("inspect", pretrained_once), ("convert", pretrained_once, "--out", tmp_path / "out")):
        assert words in refused(2, *command, option, glob)
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_is_kept(
    refused: Refused, pretrained_once: Path, network: str, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        for command in (("convert", pretrained_once), ("pretrain", network, "--data", "digits"), ("demo",)):
            assert "name a new folder" in refused(2, *command, "--out", tmp_path / name)
    assert (tmp_path / "full" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    assert len(list((tmp_path / "full").iterdir())) == 1


def test_a_layer_that_the_policy_keeps_can_be_asked_for(dirnet: Invoke, pretrained_once: Path) -> None:
    import json

    result = dirnet("inspect", pretrained_once, "--binarize", "*", "--keep", "0.2.0", "--json")
    decisions = {layer["name"]: layer["decision"] for layer in json.loads(result.stdout)["layers"]}
    assert decisions == {"0.0.0": "binarize", "0.1.0": "binarize", "0.2.0": "keep", "3": "binarize"}


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(28, "No space left on device"), 1, "No space left"),
        (PermissionError(13, "Permission denied", "/locked/x"), 1, "No permission for /locked/x"),
        (IsADirectoryError(21, "Is a directory", "x"), 2, "x is a folder"),
        (NotADirectoryError(20, "Not a directory", "x/y"), 2, "x/y is a file"),
        (FileNotFoundError(2, "No such file or directory", "x"), 2, "no x"),
        (OSError(5, "Input/output error", "x"), 1, "Input/output error (x)"),
        (MemoryError(), 1, "Not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "Not enough memory"),
    ],
)
def test_failures_of_the_system(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr("dirnet_convert.run.open_run", fail)
    assert words in refused(code, "finetune")


def test_ctrl_c_outside_a_training(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dirnet_convert.run.open_run", interrupt)
    assert refused(130, "finetune") == "Interrupted."


def test_a_network_of_other_classes_or_images_is_not_trained(
    refused: Refused, runs_below_tmp: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "def five():\n    return nn.Sequential(nn.Conv2d(3, 4, 32), nn.Flatten(), nn.Linear(4, 5))\n"
        "def grey():\n    return nn.Sequential(nn.Conv2d(1, 4, 32), nn.Flatten(), nn.Linear(4, 10))\n"
    )
    own = tmp_path / "own.py"
    assert "10 classes" in refused(2, "pretrain", f"{own}:five", "--data", "digits")
    assert "takes images of 1 channel, and these have 3" in refused(
        1, "pretrain", f"{own}:grey", "--data", "digits"
    )
    assert not runs_below_tmp.exists()
