"""Pascal VOC, and one's own images in its form: an XML file of boxes for each image."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from dirnet_convert.data.boxes import Annotation, BoxSplit, box_split
from dirnet_convert.data.detection_source import DetectionSource
from dirnet_convert.data.source import IMAGENET_MEAN, IMAGENET_STD, DataInfo
from dirnet_convert.data.where import Request
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.recipe import Task

IMAGE_SIZE = 320
CLASS_NAMES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_EDGES = ("xmin", "ymin", "xmax", "ymax")
_WHERE = "VOCdevkit/VOC2007 and VOC2012, or Annotations/, JPEGImages/ and ImageSets/Main/"


@dataclass(frozen=True)
class _Object:
    """One object of an XML file, its class by name."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


def open_voc(request: Request) -> DetectionSource:
    """Open VOC 2007 and 2012, or a folder of the same form with classes of its own.

    Trained on: every year's ``trainval`` list that has a ``test`` list beside it or another year to test on,
    else ``train``; tested on: ``test``, else ``val``. Class names are those that the request knows, or VOC's
    twenty, where the annotations have no others; else those found, by the alphabet.

    Raises:
        UsageError: the folder or a list is missing.
        DirnetError: an annotation is missing or malformed.
    """
    folders = _folders(request)
    train, test = _lists(folders)
    found = {path: _read(folder, stem) for folder, stem, path in (*train, *test)}
    named = {item.name for objects in found.values() for item in objects}
    lists = (request.wanted.class_names, CLASS_NAMES, tuple(sorted(named)))
    names = next(names for names in lists if named <= set(names))
    if not named:
        raise UsageError(f"The annotations in {folders[0]} have no object; there is nothing to detect.")
    info = DataInfo(
        request.name, len(names), names, 3, IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD, task=Task.DETECTION
    )
    splits = (_split(train, found, names), _split(test, found, names))
    return DetectionSource(request.wanted.applied(info), request.limits, *splits, request.workers)


_Entry = tuple[Path, str, Path]


def _folders(request: Request) -> list[Path]:
    root = request.folder
    if root is None:
        raise UsageError(f"Data 'voc' needs its folder: name with --data-dir the one with {_WHERE}.")
    for base in (root / "VOCdevkit", root):
        years = sorted(path for path in base.glob("VOC20*") if (path / "ImageSets" / "Main").is_dir())
        if years:
            return years
    if not (root / "ImageSets" / "Main").is_dir():
        raise UsageError(f"{root} has no images in VOC's form; {_WHERE} is looked for.")
    return [root]


def _lists(folders: list[Path]) -> tuple[list[_Entry], list[_Entry]]:
    tested = [folder for folder in folders if _list_path(folder, "test").is_file()]
    train: list[_Entry] = []
    test: list[_Entry] = []
    for folder in folders:
        whole = bool(tested) and _list_path(folder, "trainval").is_file()
        train += _entries(folder, "trainval" if whole else "train")
    for folder in tested or folders:
        test += _entries(folder, "test" if tested else "val")
    return train, test


def _list_path(folder: Path, name: str) -> Path:
    return folder / "ImageSets" / "Main" / f"{name}.txt"


def _entries(folder: Path, name: str) -> list[_Entry]:
    path = _list_path(folder, name)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UsageError(
            f"No list {path}; it names the images of '{name}', one a line without their ending."
        ) from None
    except UnicodeDecodeError:
        raise DirnetError(f"{path} is not a list of image names; write one name a line.") from None
    stems = [line.split()[0] for line in lines if line.split()]
    return [(folder, stem, folder / "JPEGImages" / f"{stem}.jpg") for stem in stems]


def _read(folder: Path, stem: str) -> list[_Object]:
    path = folder / "Annotations" / f"{stem}.xml"
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise DirnetError(f"No annotation {path}, which a list in ImageSets/Main names.") from None
    except (ElementTree.ParseError, UnicodeDecodeError, IsADirectoryError) as error:
        raise DirnetError(
            f"{path} is not valid XML ({error}); repair it or take it off the lists."
        ) from error
    return [_object(node, path) for node in root.iter("object")]


def _object(node: ElementTree.Element, path: Path) -> _Object:
    name = (node.findtext("name") or "").strip()
    values = [node.findtext(f"bndbox/{edge}") for edge in _EDGES]
    try:
        if not name:
            raise ValueError("no name")
        left, top, right, bottom = (float(value or "") for value in values)
        difficult = int(node.findtext("difficult") or 0) != 0
    except ValueError:
        raise DirnetError(
            f"{path} has an object without a name or with a box that is no four numbers; repair it."
        ) from None
    # VOC counts pixels from 1 and includes both ends; here a box reaches from edge to edge, counted from 0.
    # One whose ends are the same pixel is a slip of the hand: it stays without area, and is left out.
    if right > left and bottom > top:
        left, top = max(left - 1, 0.0), max(top - 1, 0.0)
    return _Object(name, (left, top, right, bottom), difficult)


def _split(entries: list[_Entry], found: dict[Path, list[_Object]], names: tuple[str, ...]) -> BoxSplit:
    numbers = {name: number for number, name in enumerate(names)}
    return box_split(
        (path, [Annotation(item.box, numbers[item.name], item.difficult) for item in found[path]])
        for _, _, path in entries
    )
