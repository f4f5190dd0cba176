"""The table of data sets: names, folders, and the sentences for what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dirnet_convert.data.registry import data_names, open_data
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.recipe import DataOptions


def test_names_of_the_table() -> None:
    assert data_names() == ["cifar10", "cifar100", "coco", "digits", "folder", "imagenet", "voc"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cifar01", "did you mean 'cifar10'"),
        ("imagnet", "did you mean 'imagenet'"),
        ("lsun", "there are cifar10"),
    ],
)
def test_an_unknown_name_gives_the_nearest_one(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        open_data(DataOptions(name))


def test_an_argument_belongs_to_folder_alone() -> None:
    with pytest.raises(UsageError, match="folder:DIR"):
        open_data(DataOptions("digits:somewhere"))


@pytest.mark.parametrize("field", ["image_size", "workers", "train_limit", "test_limit"])
def test_negative_numbers_are_refused(field: str) -> None:
    with pytest.raises(UsageError, match=f"data.{field}"):
        open_data(DataOptions("digits", **{field: -1}))


def test_normalization_must_fit_the_channels() -> None:
    with pytest.raises(UsageError, match="3 channels"):
        open_data(DataOptions("digits", mean=(0.5,)))
    with pytest.raises(UsageError, match="std above 0"):
        open_data(DataOptions("digits", std=(0.5, 0.0, 0.5)))


def test_own_fields_win_over_the_weights() -> None:
    weights = {"image_size": 64, "mean": (0.1, 0.1, 0.1), "std": (0.2, 0.2, 0.2)}
    source = open_data(DataOptions("digits", image_size=48), **weights)
    assert source.info.image_size == 48
    assert source.info.mean == weights["mean"]
    images, _ = next(iter(source.test_batches(2)))
    assert images.shape == (2, 3, 48, 48)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_missing_cifar_says_what_to_put_where(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=rf"{re.escape(str(tmp_path))}.*does not exist.*--download.*--data-dir"
    ):
        open_data(DataOptions(name, dir=str(tmp_path)))


def test_damaged_cifar_is_not_unpickled(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"not the official file")
    with pytest.raises(UsageError, match="incomplete or damaged"):
        open_data(DataOptions("cifar10", dir=str(tmp_path)))


def test_a_failed_download_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "url", (tmp_path / "nowhere.tar.gz").as_uri())
    with pytest.raises(DirnetError, match=r"^Downloading CIFAR-10 from .* failed") as caught:
        open_data(DataOptions("cifar10", dir=str(tmp_path / "data")), download=True)
    assert "\n" not in str(caught.value)


def test_download_can_be_asked_for_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "url", (tmp_path / "nowhere.tar.gz").as_uri())
    monkeypatch.setenv("DIRNET_DOWNLOAD", "1")
    with pytest.raises(DirnetError, match=r"^Downloading"):
        open_data(DataOptions("cifar10", dir=str(tmp_path / "data")))


def test_missing_imagenet_says_its_form(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--data-dir"):
        open_data(DataOptions("imagenet"))
    with pytest.raises(UsageError, match=r"neither val/ nor labels\.csv.*WordNet id"):
        open_data(DataOptions("imagenet", dir=str(tmp_path)))
