"""One's own images: a folder per class, with or without train/ and val/ above them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from dirnet_convert.data.augment import PHOTOGRAPH_RESIZE
from dirnet_convert.data.file_source import FileSource, FileSplit
from dirnet_convert.data.source import IMAGENET_MEAN, IMAGENET_STD, DataInfo, ImageSource
from dirnet_convert.data.where import Request
from dirnet_convert.errors import UsageError, few

IMAGE_SIZE = 224
TEST_NAMES = ("val", "test", "valid", "validation")
HELD_OUT_SHARE = 0.2


def open_folder(request: Request) -> ImageSource:
    """Open ``folder:DIR``: DIR/train/CLASS and DIR/val/CLASS, or DIR/CLASS with a fifth of each held out.

    Raises:
        UsageError: there is no such folder, no class in it, a class without images, or the splits' classes
            differ.
    """
    root = _root(request)
    if (root / "train").is_dir():
        names, train, test = _two_splits(root)
    else:
        names, train, test = _held_out(root)
    info = DataInfo(
        request.name, len(names), names, 3, IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD, PHOTOGRAPH_RESIZE
    )
    return FileSource(request.wanted.applied(info), request.limits, train, test, request.workers)


def class_folders(root: Path) -> list[Path]:
    """Return the sub-folders of ``root`` in order of name, without hidden ones."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """Return the image files anywhere below ``folder`` but in hidden folders, in order; raises UsageError
    where there are none."""
    found: list[Path] = []
    # os.walk asks the system nothing about each file, which a million of them would make felt.
    for base, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += (
            Path(base, name)
            for name in names
            if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")
        )
    found.sort()
    if not found:
        raise UsageError(f"{folder} has no image files; put some there, or remove the folder.")
    return found


def split_of(folders: list[Path], numbers: list[int]) -> FileSplit:
    """Return all images of ``folders``, labelled with the number in step."""
    pairs = [
        (path, number)
        for folder, number in zip(folders, numbers, strict=True)
        for path in image_files(folder)
    ]
    return FileSplit(tuple(path for path, _ in pairs), tuple(number for _, number in pairs))


def _root(request: Request) -> Path:
    if not request.argument and request.folder is None:
        raise UsageError(
            "Data 'folder' needs its folder: write folder:DIR, with a sub-folder of images per class."
        )
    root = Path(request.argument).expanduser() if request.argument else request.folder
    if not root.exists() and request.folder is not None and (request.folder / root).is_dir():
        root = request.folder / root
    if not root.is_dir():
        raise UsageError(
            f"No folder {root}; put a sub-folder of images per class there, or name another folder."
        )
    return root


def _two_splits(root: Path) -> tuple[tuple[str, ...], FileSplit, FileSplit]:
    test_root = next((root / name for name in TEST_NAMES if (root / name).is_dir()), None)
    if test_root is None:
        raise UsageError(
            f"{root} has train/ but none of {', '.join(f'{name}/' for name in TEST_NAMES)}; add one."
        )
    train, test = class_folders(root / "train"), class_folders(test_root)
    names = tuple(path.name for path in train)
    _check_names(names, root / "train")
    differing = sorted(set(names) ^ {path.name for path in test})
    if differing:
        quoted = few([f"'{name}'" for name in differing])
        raise UsageError(
            f"{root / 'train'} and {test_root} must have the same classes; they differ in {quoted}."
        )
    numbers = list(range(len(names)))
    return names, split_of(train, numbers), split_of(test, numbers)


def _held_out(root: Path) -> tuple[tuple[str, ...], FileSplit, FileSplit]:
    folders = class_folders(root)
    names = tuple(path.name for path in folders)
    _check_names(names, root)
    parts: tuple[list[tuple[Path, int]], list[tuple[Path, int]]] = ([], [])
    for number, folder in enumerate(folders):
        files = image_files(folder)
        if len(files) < 2:
            raise UsageError(
                f"{folder} has one image only; a class needs at least two, as one is held out for testing."
            )
        # By the hash of the name: the choice does not follow the order in which the images were taken.
        ranked = sorted(
            files, key=lambda path: hashlib.sha256(path.relative_to(root).as_posix().encode()).digest()
        )
        held_out = set(ranked[: max(1, round(len(files) * HELD_OUT_SHARE))])
        for path in files:
            parts[path in held_out].append((path, number))
    train, test = (FileSplit(tuple(p for p, _ in part), tuple(n for _, n in part)) for part in parts)
    return names, train, test


def _check_names(names: tuple[str, ...], root: Path) -> None:
    if len(names) < 2:
        raise UsageError(f"{root} must hold at least two folders, one per class; it has {len(names)}.")
