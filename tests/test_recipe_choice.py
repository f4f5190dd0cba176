"""Commands and functions begin with the same recipe, and what is said beside it changes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dirnet_convert.errors import UsageError
from dirnet_convert.recipe import EstimatorKind, Recipe, Task, load_recipe
from dirnet_convert.recipe_choice import GENERAL_RECIPES, RecipeChanges, choose_recipe
from dirnet_convert.run import RunConfig, RunFolder, Stage

NOTHING = RecipeChanges()


@pytest.mark.parametrize(
    ("model", "data", "name"),
    [
        ("resnet20", "cifar10", "cifar10-resnet20"),
        ("cifar_resnet18", "cifar10", "cifar10-resnet18"),
        ("timm:mobilenetv1_100", "imagenet", "imagenet-mobilenetv1_100"),
        ("timm:resnet18", "imagenet", "imagenet-resnet18"),
        # Another network than the one of that name for images of 32 pixels.
        ("resnet18", "cifar10", "classifier"),
        ("timm:resnet18", "cifar10", "classifier"),
        ("resnet20", "cifar100", "classifier"),
        ("timm:convnext_tiny", "imagenet", "classifier"),
        ("mine.py:build", "folder:photos", "classifier"),
        ("ssd300_vgg16", "voc", "voc-ssd300_vgg16"),
        ("mine.py:detector", "coco", "detector"),
    ],
)
def test_without_a_recipe_the_nearest_shipped_one_serves(model: str, data: str, name: str) -> None:
    chosen, found = choose_recipe(model, data, None, NOTHING)
    assert found == name
    shipped = load_recipe(name)
    assert (chosen.model.name, chosen.data.name) == (model, data)
    for section in ("convert", "pretrain", "finetune", "estimator", "distill"):
        assert getattr(chosen, section) == getattr(shipped, section)


@pytest.mark.parametrize("task", Task)
def test_a_general_recipe_is_for_any_network(task: Task) -> None:
    recipe = load_recipe(GENERAL_RECIPES[task])
    assert (recipe.model.name, recipe.data.name, recipe.expected) == ("", "", ())


def test_a_recipe_that_is_named_wins_over_the_shipped_one(tmp_path: Path) -> None:
    chosen, name = choose_recipe("resnet20", "cifar10", "cifar10-resnet20-dirnet", NOTHING)
    assert (name, chosen.estimator.weights) == ("cifar10-resnet20-dirnet", EstimatorKind.DTE)
    file = tmp_path / "own.toml"
    file.write_text("[finetune]\nepochs = 3\n")
    chosen, name = choose_recipe("resnet20", "cifar10", str(file), NOTHING)
    assert (name, chosen.finetune.epochs, chosen.model.name) == (str(file), 3, "resnet20")
    own = Recipe(seed=9)
    chosen, name = choose_recipe("resnet20", "digits", own, NOTHING)
    assert (name, chosen.seed, chosen.data.name) == ("", 9, "digits")
    assert choose_recipe(None, None, "cifar10-resnet20", NOTHING)[0] == load_recipe("cifar10-resnet20")


def test_a_run_brings_its_own(tmp_path: Path) -> None:
    recipe = dataclasses.replace(load_recipe("digits-resnet20"), seed=5)
    RunFolder(tmp_path).write_config(RunConfig(recipe, classes=10, stage=Stage.PRETRAINED))
    chosen, name = choose_recipe(str(tmp_path), None, None, NOTHING)
    assert name == f"that of {tmp_path}"
    assert (chosen.seed, chosen.finetune, chosen.data.name) == (5, recipe.finetune, "digits")


def test_what_is_said_beside_a_recipe_changes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    changes = RecipeChanges(Path("w.pth"), Path("data"), 64, 0, ["finetune.epochs=2", "model.weights=none"])
    own = dataclasses.replace(Recipe(), seed=4)
    chosen, _ = choose_recipe("resnet18", "folder:photos", own, changes)
    # A run is used from any folder.
    assert chosen.data.name == f"folder:{tmp_path / 'photos'}"
    there = dataclasses.replace(own, data=dataclasses.replace(own.data, name="folder:/gone/photos"))
    moved, _ = choose_recipe("resnet18", None, there, RecipeChanges(data_dir=tmp_path))
    assert moved.data.name == f"folder:{tmp_path / 'photos'}"
    assert (chosen.data.dir, chosen.data.image_size) == (str(tmp_path / "data"), 64)
    assert (chosen.seed, chosen.finetune.epochs, chosen.model.weights) == (0, 2, "none")
    assert choose_recipe("resnet18", "digits", own, RecipeChanges("w.pth"))[0].model.weights == "w.pth"
    weights = dataclasses.replace(own, model=dataclasses.replace(own.model, weights="w.pth"))
    assert choose_recipe("resnet18", "digits", weights, NOTHING)[0].model.weights == "w.pth"


def test_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Which images"):
        choose_recipe("resnet18", None, None, NOTHING)
    with pytest.raises(UsageError, match="Which images"):
        choose_recipe("resnet18", None, "classifier", NOTHING)
    with pytest.raises(UsageError, match="Which network"):
        choose_recipe(None, "cifar10", "classifier", NOTHING)
    with pytest.raises(UsageError, match=r"No recipe 'clasifier' .did you mean 'classifier'"):
        choose_recipe("resnet18", "cifar10", "clasifier", NOTHING)
    with pytest.raises(UsageError, match="There is no run folder"):
        choose_recipe(str(tmp_path / "nowhere"), "cifar10", None, NOTHING)
    with pytest.raises(UsageError, match="did you mean 'epochs'"):
        choose_recipe("resnet18", "cifar10", None, RecipeChanges(overrides=["finetune.epoch=2"]))
