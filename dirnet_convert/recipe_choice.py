"""Which recipe a command begins with, and what its arguments change in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dirnet_convert.data.registry import data_task
from dirnet_convert.errors import UsageError
from dirnet_convert.files import lasting_path
from dirnet_convert.overrides import apply_overrides
from dirnet_convert.recipe import DataOptions, Recipe, Task, load_recipe, recipe_names
from dirnet_convert.run import run_of_model
from dirnet_convert.run_data import placed

# What serves where no recipe of a network's own is shipped.
GENERAL_RECIPES = {Task.CLASSIFICATION: "classifier", Task.DETECTION: "detector"}


@dataclass(frozen=True)
class RecipeChanges:
    """What arguments say beside a recipe; None leaves what the recipe says."""

    weights: Path | str | None = None
    data_dir: Path | str | None = None
    image_size: int | None = None
    seed: int | None = None
    overrides: Iterable[str] = ()


def choose_recipe(
    model: str | None, data: str | None, recipe: Recipe | str | None, changes: RecipeChanges
) -> tuple[Recipe, str]:
    """Return the recipe for ``model`` and ``data`` with ``changes``, and its name ('' where it has none).

    Without ``recipe`` it is that of the run of pretrain that ``model`` names, the shipped one of the network
    and data set, or the general one of the task, in this order.

    Raises:
        UsageError: no network or no images are named, or a recipe, an override or a run's path is wrong.
    """
    chosen, name = _begun_with(model, data, recipe)
    model = chosen.model.name if model is None else model
    images = _images(chosen.data, data, changes)
    if not images.name:
        raise UsageError(
            "Which images? Name them with --data (cifar10, digits, imagenet, folder:DIR), or a --recipe "
            "that has its own."
        )
    if not model:
        raise UsageError("Which network? Name it, or a --recipe that has its own.")
    model_fields: dict[str, Any] = {"name": model}
    if changes.weights is not None:
        model_fields["weights"] = str(changes.weights)
    chosen = dataclasses.replace(
        chosen,
        model=dataclasses.replace(chosen.model, **model_fields),
        data=images,
        seed=chosen.seed if changes.seed is None else changes.seed,
    )
    return apply_overrides(chosen, changes.overrides), name


def _images(begun_with: DataOptions, data: str | None, changes: RecipeChanges) -> DataOptions:
    images = begun_with if data is None else dataclasses.replace(begun_with, name=_lasting_name(data))
    if changes.data_dir:
        folder = Path(changes.data_dir)
        # Where --data names the images, --data-dir is the folder that such a name is looked for in.
        inside = data is not None
        images = dataclasses.replace(images, dir=lasting_path(folder)) if inside else placed(images, folder)
    if changes.image_size is not None:
        images = dataclasses.replace(images, image_size=changes.image_size)
    return images


def _begun_with(model: str | None, data: str | None, recipe: Recipe | str | None) -> tuple[Recipe, str]:
    if isinstance(recipe, Recipe):
        return recipe, ""
    if recipe:
        return load_recipe(recipe), recipe
    source = run_of_model(model) if model is not None else None
    if source is not None:
        return source.read_config().recipe, f"that of {model}"
    name = _shipped_name(model, data)
    return load_recipe(name), name


def _shipped_name(model: str | None, data: str | None) -> str:
    if model and data:
        # A data set's own form of a network goes without its name in the recipe's: cifar10-resnet18 is for
        # cifar_resnet18, and not for resnet18.
        plain = model.removeprefix("timm:")
        own = f"{data}-{plain.removeprefix('cifar_')}"
        if own in recipe_names() and load_recipe(own).model.name.removeprefix("timm:") == plain:
            return own
    return GENERAL_RECIPES[data_task(data or "")]


def _lasting_name(data: str) -> str:
    kind, _, folder = data.partition(":")
    found = kind == "folder" and folder and Path(folder).expanduser().is_dir()
    return f"folder:{lasting_path(Path(folder))}" if found else data
