"""COCO, and one's own images in its form: one JSON file of boxes for each split."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from dirnet_convert.data.boxes import Annotation, BoxSplit, box_split
from dirnet_convert.data.detection_source import DetectionSource
from dirnet_convert.data.source import IMAGENET_MEAN, IMAGENET_STD, DataInfo
from dirnet_convert.data.where import Request
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.recipe import Task

IMAGE_SIZE = 320
_WHERE = "annotations/instances_train2017.json and instances_val2017.json, train2017/ and val2017/"


def open_coco(request: Request) -> DetectionSource:
    """Open COCO 2017, or a folder of the same form; the images lie in folders named as the JSON files end.

    Classes are the categories in the order of their ids, numbered without gaps; crowds are marked as such.

    Raises:
        UsageError: the folder or the validation file is missing.
        DirnetError: a file is malformed, or the splits have different categories.
    """
    root = request.folder
    if root is None:
        raise UsageError(f"Data 'coco' needs its folder: name with --data-dir the one with {_WHERE}.")
    test_file = _newest(root, "val")
    if test_file is None:
        raise UsageError(f"{root} has no images in COCO's form; {_WHERE} are looked for.")
    test, categories = _read(root, test_file)
    train_file = _newest(root, "train")
    train = BoxSplit()
    if train_file is not None:
        train, others = _read(root, train_file)
        if others != categories:
            raise DirnetError(
                f"{train_file} and {test_file} have different categories; they must be the same."
            )
    names = tuple(categories.values())
    info = DataInfo(
        request.name, len(names), names, 3, IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD, task=Task.DETECTION
    )
    return DetectionSource(request.wanted.applied(info), request.limits, train, test, request.workers)


def _newest(root: Path, split: str) -> Path | None:
    """Return the split's file of the latest year, or None where there is none."""
    found = sorted((root / "annotations").glob(f"instances_{split}*.json"))
    return found[-1] if found else None


def _read(root: Path, path: Path) -> tuple[BoxSplit, dict[int, str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DirnetError(f"{path} is not valid JSON ({error}); get it again.") from error
    folder = root / path.stem.removeprefix("instances_")
    try:
        return _parse(content, folder)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        cause = f"'{error.args[0]}' is missing or unknown" if isinstance(error, KeyError) else str(error)
        raise DirnetError(
            f"{path} is not in COCO's form ({cause}): lists 'images', 'annotations' and 'categories'."
        ) from error


def _parse(content: dict[str, Any], folder: Path) -> tuple[BoxSplit, dict[int, str]]:
    categories = {
        int(item["id"]): str(item["name"]) for item in sorted(content["categories"], key=lambda c: c["id"])
    }
    numbers = {identity: number for number, identity in enumerate(categories)}
    images = {item["id"]: folder / str(item["file_name"]) for item in content["images"]}
    objects: dict[Any, list[Annotation]] = defaultdict(list)
    for item in content["annotations"]:
        left, top, width, height = (float(value) for value in item["bbox"])
        if item["image_id"] not in images:
            raise KeyError(f"image {item['image_id']}")
        box = (left, top, left + width, top + height)
        objects[item["image_id"]].append(
            Annotation(box, numbers[item["category_id"]], bool(item.get("iscrowd", 0)))
        )
    return box_split((path, objects[identity]) for identity, path in images.items()), categories
