"""Every form of MODEL is found and built, and a wrong one is answered with the nearest."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.models import catalog
from dirnet_convert.models.catalog import Origin, find_model, load_for_training, load_pretrained, own_names


@pytest.mark.parametrize(
    ("name", "origin", "size", "classes"),
    [
        ("resnet18", Origin.TORCHVISION, 224, 1000),
        ("inception_v3", Origin.TORCHVISION, 299, 1000),
        ("timm:resnet18", Origin.TIMM, 224, 1000),
        ("resnet20", Origin.OWN, 32, 0),
    ],
)
def test_a_model_is_found_with_what_its_weights_want(
    name: str, origin: Origin, size: int, classes: int
) -> None:
    entry = find_model(name)
    assert (entry.origin, entry.image_size, entry.classes) == (origin, size, classes)
    # Networks without published weights see images as their data set says.
    assert len(entry.mean) == len(entry.std) == (0 if origin is Origin.OWN else 3)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "timm:resnet10t", *own_names()])
def test_a_head_has_the_asked_number_of_classes(name: str, generator: torch.Generator) -> None:
    network = find_model(name).build(7).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet19", "did you mean 'resnet18'"),
        ("resnet22", "No network 'resnet22'.*did you mean"),
        ("vgg_smal", "did you mean 'vgg_small'"),
        ("efficientnetv2_rw_s", "name it 'timm:efficientnetv2_rw_s'"),
        ("timm:resnet19x", "timm has no network 'resnet19x'.*did you mean"),
        ("timm:", "timm has no network ''"),
        ("timm:resnet18.a1_in1q", "no weights 'a1_in1q' of resnet18.*did you mean 'a1_in1k'"),
        ("", "No network ''"),
        ("nowhere.py:make", "No file nowhere.py"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        find_model(name)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_heads_are_built_as_their_weights_want(name: str, tmp_path: Path) -> None:
    # torchvision sets these when it loads its weights; a network rebuilt without them would compute something
    # else.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = find_model(name).build(1000)
    assert network.transform_input and not network.aux_logits
    published = network.state_dict() | {"aux1.fc1.weight": torch.ones(1), "AuxLogits.fc.bias": torch.ones(1)}
    published.pop("AuxLogits.fc.bias" if name == "googlenet" else "aux1.fc1.weight")
    torch.save(published, tmp_path / "w.pth")
    loaded = load_pretrained(find_model(name), str(tmp_path / "w.pth"), 1000)
    assert torch.equal(loaded.fc.weight, network.fc.weight)


def test_weights_of_a_file_are_loaded(tmp_path: Path, generator: torch.Generator) -> None:
    entry = find_model("resnet20")
    state = entry.build(10).state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "w.th")
    network = load_pretrained(entry, str(tmp_path / "w.th"), 10)
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def test_convert_wants_weights_that_fit(tmp_path: Path, generator: torch.Generator) -> None:
    entry = find_model("resnet20")
    torch.save(entry.build(10).state_dict(), tmp_path / "ten.th")
    torch.save(find_model("resnet32").build(10).state_dict(), tmp_path / "deep.th")
    for weights, classes, words in (
        ("none", 10, "needs a pretrained network.*dirnet pretrain resnet20"),
        ("default", 10, "no published weights for resnet20"),
        (str(tmp_path / "missing.th"), 10, "No weights file"),
        (str(tmp_path / "ten.th"), 7, "are for 10 classes and the data has 7.*dirnet pretrain"),
        (str(tmp_path / "deep.th"), 10, "unknown layer1.3.conv1.weight"),
    ):
        with pytest.raises(DirnetError, match=words):
            load_pretrained(entry, weights, classes)
    with pytest.raises(UsageError, match="for 1000 classes and the data has 10"):
        load_pretrained(find_model("resnet18"), "default", 10)


def test_training_takes_a_new_head(tmp_path: Path, generator: torch.Generator) -> None:
    entry = find_model("resnet20")
    state = entry.build(10).state_dict()
    torch.save(state, tmp_path / "ten.th")
    network, new = load_for_training(entry, str(tmp_path / "ten.th"), 7)
    assert sorted(new) == ["linear.bias", "linear.weight"]
    assert torch.equal(network.conv1.weight, state["conv1.weight"])
    for weights in ("none", "default"):
        network, new = load_for_training(entry, weights, 7)
        assert set(new) == set(network.state_dict())


@pytest.mark.parametrize("name", ["resnet18", "timm:resnet18"])
def test_a_failed_download_is_a_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(catalog.torchvision.models, "get_model", refuse)
    monkeypatch.setattr(catalog.timm, "create_model", refuse)
    with pytest.raises(DirnetError, match=r"could not be downloaded \(no route to host\)"):
        load_pretrained(find_model(name), "default", 1000)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "file", "classes"),
    [
        ("resnet20", "cifar10-resnet20-akamaster.th", 10),
        ("resnet56", "cifar10-resnet56-akamaster.th", 10),
        ("mobilenet_v2", "imagenet-mobilenet_v2.pth", 1000),
    ],
)
def test_public_checkpoints_fit(real_data_root: Path, name: str, file: str, classes: int) -> None:
    network = load_pretrained(find_model(name), str(real_data_root / "weights" / file), classes)
    assert (
        sum(p.numel() for p in network.parameters())
        == {
            "resnet20": 269_722,
            "resnet56": 853_018,
            "mobilenet_v2": 3_504_872,
        }[name]
    )
