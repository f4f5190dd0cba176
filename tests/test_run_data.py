"""A run's images are found where they lie now, and have the classes that its network knows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dirnet_convert.errors import UsageError
from dirnet_convert.recipe import DataOptions, Recipe, Task
from dirnet_convert.run import RunConfig
from dirnet_convert.run_data import open_run_data, placed

BOX = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>20</xmax><ymax>20</ymax></bndbox>"


def _folder(root: Path, *classes: str) -> Path:
    for name in classes:
        (root / name).mkdir(parents=True)
        for k in range(3):
            Image.fromarray(np.full((8, 8, 3), 40 * k, np.uint8)).save(root / name / f"{k}.png")
    return root


def _voc(root: Path, *names: str) -> Path:
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    for split in ("train", "val"):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(split)
        Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(root / "JPEGImages" / f"{split}.jpg")
        objects = "".join(f"<object><name>{name}</name>{BOX}</object>" for name in names)
        (root / "Annotations" / f"{split}.xml").write_text(f"<annotation>{objects}</annotation>")
    return root


def _config(data: DataOptions, *classes: str, task: Task = Task.CLASSIFICATION) -> RunConfig:
    size = {"image_size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return RunConfig(Recipe(data=data), len(classes), class_names=classes, task=task, **size)


def test_a_class_of_another_name_is_refused(tmp_path: Path) -> None:
    root = _folder(tmp_path / "photos", "Cat", "bird")
    config = _config(DataOptions(f"folder:{root}"), "Cat", "bird")
    assert open_run_data(config).info.class_names == ("Cat", "bird")
    (root / "Cat").rename(root / "cat")
    with pytest.raises(UsageError, match=r"other classes .* differ in 'Cat', 'cat'"):
        open_run_data(config)
    # One class more changes the number of classes, which whoever counts logits says better.
    _folder(root, "dog")
    assert open_run_data(config).info.classes == 3


def test_classes_of_a_data_set_with_names_of_its_own_are_not_compared(tmp_path: Path) -> None:
    named = _config(DataOptions("digits"), *"abcdefghij")
    assert open_run_data(named).info.class_names != named.class_names
    # A network for ImageNet, say, and a folder with ids for names.
    folder = DataOptions(f"folder:{_folder(tmp_path / 'ids', *(f'n{k}' for k in range(10)))}")
    assert open_run_data(named, folder).info.classes == 10


def test_boxes_are_numbered_as_the_network_learnt_them(tmp_path: Path) -> None:
    learnt = DataOptions("voc", dir=str(_voc(tmp_path / "all", "car", "person", "sign")))
    config = _config(learnt, "car", "person", "sign", task=Task.DETECTION)
    # Car and person are two of VOC's own twenty, as numbers 7 and 15.
    fewer = DataOptions("voc", dir=str(_voc(tmp_path / "fewer", "person", "car")))
    source = open_run_data(config, fewer)
    assert source.info.class_names == ("car", "person", "sign")
    _, (target,) = next(iter(source.test_batches(1)))
    assert target["labels"].tolist() == [2, 1]
    others = DataOptions("voc", dir=str(_voc(tmp_path / "others", "car", "tree")))
    with pytest.raises(UsageError, match="differ in 'person', 'sign', 'tree'"):
        open_run_data(config, others)


@pytest.mark.parametrize("inside", [True, False])
def test_a_folder_that_has_moved_is_found(tmp_path: Path, inside: bool) -> None:
    gone = DataOptions(f"folder:{tmp_path / 'old' / 'photos'}", workers=3)
    place = _folder(tmp_path / "new" / "photos", "ant", "bee")
    moved = placed(gone, place.parent if inside else place)
    assert moved == dataclasses.replace(gone, name=f"folder:{place}")
    assert open_run_data(_config(gone, "ant", "bee"), moved).train_size == 4


def test_other_images_are_looked_for_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cifar10", "folder:photos"):
        assert placed(DataOptions(name), Path("here")) == DataOptions(name, dir=str(tmp_path / "here"))
