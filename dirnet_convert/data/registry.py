"""The one table of data sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dirnet_convert.data.augment import PHOTOGRAPH_RESIZE
from dirnet_convert.data.cifar import open_cifar10, open_cifar100
from dirnet_convert.data.coco import open_coco
from dirnet_convert.data.digits import open_digits
from dirnet_convert.data.folder import open_folder
from dirnet_convert.data.imagenet import open_imagenet
from dirnet_convert.data.source import ImageSource, Limits, Wanted
from dirnet_convert.data.voc import open_voc
from dirnet_convert.data.where import Request, data_folder, download_requested
from dirnet_convert.errors import UsageError, nearest_name
from dirnet_convert.recipe import DataOptions, Task


@dataclass(frozen=True)
class DataSet:
    """One row of the table: how it is opened, its images' DataInfo.test_resize, what they teach, and whether
    its classes are those that are found in it."""

    open: Callable[[Request], ImageSource]
    test_resize: float = 1.0
    task: Task = Task.CLASSIFICATION
    finds_classes: bool = False


DATA_SETS: dict[str, DataSet] = {
    "cifar10": DataSet(open_cifar10),
    "cifar100": DataSet(open_cifar100),
    "coco": DataSet(open_coco, task=Task.DETECTION, finds_classes=True),
    "digits": DataSet(open_digits),
    "folder": DataSet(open_folder, PHOTOGRAPH_RESIZE, finds_classes=True),
    "imagenet": DataSet(open_imagenet, PHOTOGRAPH_RESIZE),
    "voc": DataSet(open_voc, task=Task.DETECTION, finds_classes=True),
}


def data_names() -> list[str]:
    """Return the names that --data takes."""
    return sorted(DATA_SETS)


def test_resize(name: str) -> float:
    """Return DataInfo.test_resize of the data set ``name``, that of photographs where the name is unknown."""
    known = DATA_SETS.get(name.partition(":")[0])
    return known.test_resize if known else PHOTOGRAPH_RESIZE


def data_task(name: str) -> Task:
    """Return what the images of data set ``name`` teach, classes where the name is unknown."""
    known = DATA_SETS.get(name.partition(":")[0])
    return known.task if known else Task.CLASSIFICATION


def finds_classes(name: str) -> bool:
    """Tell whether the classes of data set ``name`` are those that are found in its files."""
    known = DATA_SETS.get(name.partition(":")[0])
    return known is not None and known.finds_classes


def open_data(
    options: DataOptions,
    *,
    image_size: int = 0,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    class_names: tuple[str, ...] = (),
    download: bool = False,
) -> ImageSource:
    """Open the data set that ``options`` names; its fields win over the other arguments (the weights').

    ``class_names`` are those that a network knows. ``download`` (or DIRNET_DOWNLOAD=1) allows fetching what
    is missing and can be fetched.

    Raises:
        UsageError: an unknown name, or files that are not there; the sentence says what to put where.
        DirnetError: a download failed.
    """
    name, _, argument = options.name.partition(":")
    if name not in DATA_SETS or (argument and name != "folder"):
        raise UsageError(
            f"No data set '{options.name}'{nearest_name(name, DATA_SETS)}; there are "
            f"{', '.join(data_names())} (folder is written folder:DIR)."
        )
    for field in ("image_size", "workers", "train_limit", "test_limit"):
        if getattr(options, field) < 0:
            raise UsageError(f"data.{field} must not be negative, it is {getattr(options, field)}.")
    request = Request(
        name=options.name,
        argument=argument,
        folder=data_folder(options.dir),
        wanted=Wanted(
            options.image_size or image_size, options.mean or mean, options.std or std, class_names
        ),
        limits=Limits(options.train_limit, options.test_limit),
        workers=options.workers,
        download=download_requested(download),
    )
    return DATA_SETS[name].open(request)
