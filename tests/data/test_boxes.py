"""VOC and COCO: what their annotations become, and what is said of bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dirnet_convert.data.augment import Augmentation
from dirnet_convert.data.boxes import Annotation, box_split, prepare_stretched, prepared, without_excused
from dirnet_convert.data.registry import open_data
from dirnet_convert.data.source import DataInfo, ImageSource
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.recipe import AugmentKind, DataOptions, Task

SIZE = (40, 20)
VocObject = tuple[str, tuple[object, object, object, object], int]


def write_image(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 60).convert("RGB").save(path)


def write_voc(root: Path, lists: dict[str, dict[str, list[VocObject]]]) -> None:
    for name, images in lists.items():
        text = "".join(f"{stem}\n" for stem in images)
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(text)
        for stem, objects in images.items():
            write_image(root / "JPEGImages" / f"{stem}.jpg")
            nodes = "".join(
                f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>"
                f"<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
                for label, box, difficult in objects
            )
            (root / "Annotations").mkdir(exist_ok=True)
            (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{nodes}</annotation>")


def write_coco(root: Path, split: str, content: dict[str, Any]) -> Path:
    for image in content.get("images", ()):
        write_image(root / split / image["file_name"])
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def coco_content(**changes: Any) -> dict[str, Any]:
    content = {
        "images": [{"id": 7, "file_name": "7.jpg"}, {"id": 9, "file_name": "9.jpg"}],
        "annotations": [
            {"image_id": 7, "category_id": 18, "bbox": [4, 2, 8, 10], "iscrowd": 0},
            {"image_id": 7, "category_id": 3, "bbox": [0, 0, 40, 20], "iscrowd": 1},
            {"image_id": 7, "category_id": 3, "bbox": [5, 5, 0, 4], "iscrowd": 0},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
    }
    return content | changes


def opened(name: str, folder: Path, **options: Any) -> ImageSource:
    return open_data(DataOptions(name=name, dir=str(folder), **options))


def one_test_target(source: ImageSource) -> dict[str, torch.Tensor]:
    _, targets = next(iter(source.test_batches(1)))
    return targets[0]


def test_voc_folder_of_own_classes(tmp_path: Path) -> None:
    objects: list[VocObject] = [
        ("cell", (5, 3, 12, 12), 0),
        ("nucleus", (1, 1, 40, 20), 1),
        ("cell", (9, 4, 9, 12), 0),
    ]
    write_voc(tmp_path, {"train": {"a": objects, "b": []}, "test": {"c": objects}})
    source = opened("voc", tmp_path, image_size=80)
    assert source.info.task is Task.DETECTION and source.info.class_names == ("cell", "nucleus")
    assert (source.train_size, source.test_size) == (2, 1)
    assert source.notes == ("2 boxes without area were left out of data 'voc'.",)
    target = one_test_target(source)
    # From pixels 5..12 counted from 1, both included, of 40 to [4, 12) of 40, and then to 80.
    assert target["boxes"].tolist() == [[8, 8, 24, 48], [0, 0, 80, 80]]
    assert target["labels"].tolist() == [1, 2] and target["iscrowd"].tolist() == [0, 1]
    assert without_excused(target)["labels"].tolist() == [1]


def test_voc_names_are_the_twenty_where_they_fit(tmp_path: Path) -> None:
    write_voc(
        tmp_path, {"train": {"a": [("dog", (1, 1, 9, 9), 0)]}, "val": {"b": [("cat", (1, 1, 9, 9), 0)]}}
    )
    source = opened("voc", tmp_path)
    assert source.info.classes == 20 and source.info.class_names[11] == "dog"
    assert one_test_target(source)["labels"].tolist() == [8]


def test_voc_years_train_together_and_test_on_the_one_with_a_test_list(tmp_path: Path) -> None:
    dog: list[VocObject] = [("dog", (1, 1, 9, 9), 0)]
    write_voc(tmp_path / "VOCdevkit" / "VOC2007", {"trainval": {"a": dog, "b": dog}, "test": {"c": dog}})
    write_voc(tmp_path / "VOCdevkit" / "VOC2012", {"trainval": {"d": dog}, "train": {}, "val": {"d": dog}})
    source = opened("voc", tmp_path)
    assert (source.train_size, source.test_size) == (3, 1)
    assert opened("voc", tmp_path / "VOCdevkit").train_size == 3


def _without_annotation(root: Path) -> None:
    (root / "Annotations" / "c.xml").unlink()


def _broken_xml(root: Path) -> None:
    (root / "Annotations" / "c.xml").write_text("<annotation><object>")


def _bad_number(root: Path) -> None:
    path = root / "Annotations" / "c.xml"
    path.write_text(path.read_text().replace("<xmin>1", "<xmin>left"))


def _without_list(root: Path) -> None:
    (root / "ImageSets" / "Main" / "train.txt").unlink()


def _without_objects(root: Path) -> None:
    for path in (root / "Annotations").iterdir():
        path.write_text("<annotation/>")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_without_annotation, r"No annotation .*c\.xml"),
        (_broken_xml, r"c\.xml is not valid XML"),
        (_bad_number, r"c\.xml has an object .* no four numbers"),
        (_without_list, r"No list .*train\.txt"),
        (_without_objects, r"no object"),
    ],
)
def test_what_is_wrong_with_voc_is_a_sentence(damage: Any, sentence: str, tmp_path: Path) -> None:
    dog: list[VocObject] = [("dog", (1, 1, 9, 9), 0)]
    write_voc(tmp_path, {"train": {"a": dog}, "val": {"c": dog}})
    damage(tmp_path)
    with pytest.raises(DirnetError, match=sentence):
        opened("voc", tmp_path)


def test_missing_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    write_voc(tmp_path, {"train": {"a": []}, "val": {"c": [("dog", (1, 1, 9, 9), 0)]}})
    (tmp_path / "JPEGImages" / "c.jpg").unlink()
    with pytest.raises(DirnetError, match=r"c\.jpg cannot be read as an image \(no such file\)"):
        list(opened("voc", tmp_path).test_batches(1))


def test_coco_categories_are_numbered_without_gaps_and_crowds_marked(tmp_path: Path) -> None:
    write_coco(tmp_path, "val2017", coco_content())
    write_coco(tmp_path, "train2017", coco_content())
    source = opened("coco", tmp_path, image_size=40)
    assert source.info.class_names == ("car", "dog")
    assert source.notes == ("2 boxes without area were left out of data 'coco'.",)
    target = one_test_target(source)
    assert target["boxes"].tolist() == [[4, 4, 12, 24], [0, 0, 40, 40]]
    assert target["labels"].tolist() == [2, 1] and target["iscrowd"].tolist() == [0, 1]
    images, targets = next(iter(source.train_batches(2, Augmentation(AugmentKind.NONE), 0, 0)))
    assert images.shape == (2, 3, 40, 40) and sorted(len(t["boxes"]) for t in targets) == [0, 2]


def test_coco_without_training_images_evaluates_only(tmp_path: Path) -> None:
    write_coco(tmp_path, "val2017", coco_content())
    source = opened("coco", tmp_path)
    assert source.calibration_images(2, 0).shape == (2, 3, 320, 320)
    with pytest.raises(UsageError, match="only validation images"):
        source.steps_per_epoch(1)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"images": []}, "'categories' is missing or unknown"),
        (coco_content(annotations=[{"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1]}]), "image 1"),
        (
            coco_content(annotations=[{"image_id": 7, "category_id": 5, "bbox": [0, 0, 1, 1]}]),
            "'5' is missing",
        ),
        (coco_content(annotations=[{"image_id": 7, "category_id": 3, "bbox": [0, 0, 1]}]), "COCO's form"),
        (["a list"], "COCO's form"),
    ],
)
def test_what_is_wrong_with_coco_is_a_sentence(content: Any, sentence: str, tmp_path: Path) -> None:
    path = write_coco(tmp_path, "val2017", coco_content())
    path.write_text(json.dumps(content))
    with pytest.raises(DirnetError, match=sentence):
        opened("coco", tmp_path)


def test_coco_file_cut_short_and_splits_that_differ(tmp_path: Path) -> None:
    path = write_coco(tmp_path, "val2017", coco_content())
    write_coco(tmp_path, "train2017", coco_content(categories=[{"id": 3, "name": "car"}], annotations=[]))
    with pytest.raises(DirnetError, match="different categories"):
        opened("coco", tmp_path)
    path.write_text(path.read_text()[:40])
    with pytest.raises(DirnetError, match="not valid JSON"):
        opened("coco", tmp_path)


@pytest.mark.parametrize("name", ["voc", "coco"])
def test_missing_folder_is_a_usage_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIRNET_DATA", raising=False)
    with pytest.raises(UsageError, match="--data-dir"):
        open_data(DataOptions(name=name))
    with pytest.raises(UsageError, match="looked for"):
        opened(name, tmp_path)


@pytest.mark.parametrize("augment", [None, *AugmentKind])
def test_every_box_lies_in_the_image_and_has_area(
    augment: AugmentKind | None, generator: torch.Generator
) -> None:
    image = Image.effect_noise((60, 45), 50).convert("RGB")
    objects = box_split(
        [(Path("x"), [Annotation((-4.0, 3.0, 30.0, 99.0), 0), Annotation((20, 8, 50, 40), 1)])]
    )
    for _ in range(20):
        pixels, target = prepared(image, objects.objects[0], 32, augment)
        boxes = target["boxes"]
        assert pixels.shape == (3, 32, 32) and pixels.dtype == torch.uint8
        assert len(boxes) == len(target["labels"]) == len(target["iscrowd"])
        assert (boxes[:, 2:] > boxes[:, :2]).all() and boxes.min() >= 0 and boxes.max() <= 32


def test_flipped_boxes_follow_the_image(generator: torch.Generator) -> None:
    image = Image.new("RGB", (40, 20))
    image.paste((255, 255, 255), (4, 5, 12, 15))
    seen = set()
    for _ in range(20):
        pixels, target = prepared(image, (Annotation((4, 5, 12, 15), 0),), 40, AugmentKind.FLIP)
        left, top, right, bottom = (int(value) for value in target["boxes"][0])
        assert pixels[:, top + 2 : bottom - 2, left + 1 : right - 1].min() > 200
        assert pixels[:, :, : left - 1].sum() == 0 and pixels[:, :, right + 1 :].sum() == 0
        seen.add(left)
    assert seen == {4, 28}


def test_training_batches_depend_on_seed_and_position_alone(tmp_path: Path) -> None:
    dog: list[VocObject] = [("dog", (5, 3, 30, 18), 0)]
    write_voc(tmp_path, {"train": {name: dog for name in "abcdef"}, "val": {"g": dog}})
    source = opened("voc", tmp_path, image_size=32)
    whole = list(source.train_batches(2, Augmentation(AugmentKind.FLIP_CROP), 3, 1))
    later = list(source.train_batches(2, Augmentation(AugmentKind.FLIP_CROP), 3, 1, start_batch=2))
    assert torch.equal(whole[2][0], later[0][0])
    assert torch.equal(whole[2][1][1]["boxes"], later[0][1][1]["boxes"])
    other = list(source.train_batches(2, Augmentation(AugmentKind.FLIP_CROP), 3, 2))
    assert not torch.equal(whole[0][0], other[0][0])


def test_one_image_is_prepared_as_a_test_image_is(tmp_path: Path) -> None:
    write_voc(tmp_path, {"train": {"a": []}, "val": {"c": [("dog", (1, 1, 9, 9), 0)]}})
    source = opened("voc", tmp_path, image_size=48)
    images, _ = next(iter(source.test_batches(1)))
    with Image.open(tmp_path / "JPEGImages" / "c.jpg") as image:
        assert torch.equal(prepare_stretched(image, source.info), images)
    assert isinstance(source.info, DataInfo)


@pytest.mark.real_data
def test_blood_cells_and_coco_open(real_data_root: Path) -> None:
    cells = opened("voc", real_data_root / "bccd")
    assert cells.info.class_names == ("Platelets", "RBC", "WBC")
    assert (cells.train_size, cells.test_size) == (292, 72)
    assert cells.notes[0].startswith("2 boxes without area")
    coco = opened("coco", real_data_root / "coco256")
    assert coco.info.classes == 80 and (coco.train_size, coco.test_size) == (128, 128)
    images, targets = next(iter(coco.test_batches(4)))
    assert images.shape == (4, 3, 320, 320) and sum(len(t["boxes"]) for t in targets) > 4
