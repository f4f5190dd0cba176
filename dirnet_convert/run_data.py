"""The images of a run: where they lie, prepared as its network takes them, of the classes that it knows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dirnet_convert.data.registry import finds_classes, open_data
from dirnet_convert.data.source import ImageSource
from dirnet_convert.errors import UsageError, few
from dirnet_convert.files import lasting_path
from dirnet_convert.recipe import DataOptions, Task
from dirnet_convert.run import RunConfig


def open_run_data(
    config: RunConfig, options: DataOptions | None = None, *, download: bool = False
) -> ImageSource:
    """Open the images that ``options`` name (the run's own if None) for the run's network.

    What ``options`` say of size and normalization wins over the run's. Classes that are numbered as they are
    found (folders, boxes) must have the names that the network was trained with; their mere number is left
    to whoever counts logits.

    Raises:
        UsageError: as open_data, or the classes have other names or another order than the network's.
        DirnetError: a download failed, or an annotation is damaged.
    """
    options = config.recipe.data if options is None else options
    known = config.class_names if finds_classes(config.recipe.data.name) else ()
    data = open_data(
        options,
        image_size=config.image_size,
        mean=config.mean,
        std=config.std,
        class_names=known,
        download=download,
    )
    if known and finds_classes(options.name):
        _check_names(known, data)
    return data


def placed(options: DataOptions, folder: Path) -> DataOptions:
    """Return ``options`` with images that lie in ``folder`` (--data-dir).

    A run keeps the whole path of folder:DIR; ``folder`` is then another DIR, or has one of the same name.
    """
    where = Path(lasting_path(folder))
    kind, _, argument = options.name.partition(":")
    if kind == "folder" and Path(argument).is_absolute():
        inner = where / Path(argument).name
        return dataclasses.replace(options, name=f"folder:{inner if inner.is_dir() else where}")
    return dataclasses.replace(options, dir=str(where))


def _check_names(known: tuple[str, ...], data: ImageSource) -> None:
    found = data.info.class_names
    counted_elsewhere = len(found) != len(known) and data.info.task is Task.CLASSIFICATION
    if found == known or counted_elsewhere:
        return
    differing = [f"'{name}'" for name in sorted(set(found) ^ set(known))]
    what = f"they differ in {few(differing)}" if differing else "they are the same in another order"
    raise UsageError(
        f"Data '{data.info.name}' has other classes than this network was trained for ({what}); name images "
        "whose classes are called as they were then."
    )
