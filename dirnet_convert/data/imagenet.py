"""ImageNet's 1000 classes or some of them, always under ImageNet's own label numbers."""

from __future__ import annotations

import csv
from pathlib import Path

from dirnet_convert.data.augment import PHOTOGRAPH_RESIZE
from dirnet_convert.data.file_source import FileSource, FileSplit
from dirnet_convert.data.folder import class_folders, split_of
from dirnet_convert.data.source import IMAGENET_MEAN, IMAGENET_STD, DataInfo, ImageSource
from dirnet_convert.data.where import Request
from dirnet_convert.errors import UsageError

CLASSES = 1000
IMAGE_SIZE = 224
FORM = (
    "it needs train/ and val/ with a folder of images per class named by its WordNet id (n01440764), "
    "or labels.csv (file,label) beside images/ for validation alone"
)


def open_imagenet(request: Request) -> ImageSource:
    """Open ImageNet from folders named by WordNet id, or from a labels.csv of validation images.

    Raises:
        UsageError: no folder was named, it has neither form, or a folder's name is no class of ImageNet's.
    """
    root = _root(request)
    ids, names = imagenet_classes()
    if (root / "labels.csv").is_file():
        train, test = FileSplit(), _listed(root)
    else:
        train = _by_wordnet_id(root / "train", ids) if (root / "train").is_dir() else FileSplit()
        test = _by_wordnet_id(root / "val", ids)
    info = DataInfo(
        request.name, CLASSES, names, 3, IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD, PHOTOGRAPH_RESIZE
    )
    return FileSource(request.wanted.applied(info), request.limits, train, test, request.workers)


def imagenet_classes() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the 1000 WordNet ids and the names that go with them, in the order of ImageNet's labels."""
    from timm.data import ImageNetInfo

    table = ImageNetInfo()
    return tuple(table.label_names()), tuple(table.index_to_description(number) for number in range(CLASSES))


def _root(request: Request) -> Path:
    if request.folder is None:
        raise UsageError(f"Data 'imagenet' needs --data-dir or DIRNET_DATA: {FORM}.")
    for root in (request.folder, request.folder / "imagenet"):
        if (root / "val").is_dir() or (root / "labels.csv").is_file():
            return root
    state = "has neither val/ nor labels.csv" if request.folder.is_dir() else "does not exist"
    raise UsageError(f"{request.folder} {state} (ImageNet cannot be downloaded freely): {FORM}.")


def _by_wordnet_id(folder: Path, ids: tuple[str, ...]) -> FileSplit:
    numbers = {name: number for number, name in enumerate(ids)}
    folders = class_folders(folder)
    if not folders:
        raise UsageError(f"{folder} is empty: {FORM}.")
    for path in folders:
        if path.name not in numbers:
            raise UsageError(
                f"{path} is not named by the WordNet id of one of ImageNet's 1000 classes; "
                f"for classes of your own use --data folder:{folder.parent}."
            )
    return split_of(folders, [numbers[path.name] for path in folders])


def _listed(root: Path) -> FileSplit:
    table = root / "labels.csv"
    images = root / "images" if (root / "images").is_dir() else root
    try:
        with table.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.reader(handle))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"{table} is no table of comma-separated values in UTF-8 ({error}); save it as one."
        ) from None
    paths, labels = [], []
    for number, row in enumerate(rows, 1):
        if not row or (number == 1 and row[1:] and not row[1].strip().isdecimal()):
            continue
        if len(row) != 2 or not _is_label(row[1].strip()):
            raise UsageError(
                f"{table}, line {number}: 'file,label' with a label from 0 to {CLASSES - 1} is expected."
            )
        paths.append(images / row[0].strip())
        labels.append(int(row[1]))
    if not paths:
        raise UsageError(f"{table} lists no images.")
    return FileSplit(tuple(paths), tuple(labels))


def _is_label(text: str) -> bool:
    # Python refuses to read a number of thousands of digits.
    return text.isdecimal() and len(text) < 100 and int(text) < CLASSES
