"""Recipes are checked key by key, and come back from TOML as they went in."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tomli_w

from dirnet_convert.errors import UsageError
from dirnet_convert.recipe import (
    Activation,
    AugmentKind,
    EstimatorKind,
    Expected,
    Recipe,
    Shortcut,
    from_dict,
    load_recipe,
    read_toml,
    recipe_folder,
    recipe_names,
    to_dict,
)


def test_defaults_survive_a_round_trip_through_toml(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        Recipe(), expected=(Expected("teacher", 91.73, "the checkpoint's page"),), title='a "title"'
    )
    path = tmp_path / "r.toml"
    path.write_text(tomli_w.dumps(to_dict(recipe)))
    assert load_recipe(str(path)) == recipe


def test_values_of_every_kind_are_read() -> None:
    recipe = from_dict(
        Recipe,
        {
            "seed": 3,
            "convert": {"keep": ["a.*", "b"], "shortcut": "original", "activation": "rprelu"},
            "finetune": {"lr": 1, "compile": False},
            "data": {"mean": [0, 0.5, 1]},
            "estimator": {"weights": "ede"},
            "expected": [{"stage": "teacher", "top1_percent": 91, "source": "here"}],
        },
        "x",
    )
    assert recipe.convert.keep == ("a.*", "b")
    assert recipe.convert.shortcut is Shortcut.ORIGINAL
    assert recipe.convert.activation is Activation.RPRELU
    assert recipe.estimator.weights is EstimatorKind.EDE
    assert (recipe.finetune.lr, type(recipe.finetune.lr)) == (1.0, float)
    assert recipe.data.mean == (0.0, 0.5, 1.0) and all(type(v) is float for v in recipe.data.mean)
    assert recipe.expected[0].top1_percent == 91.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sed": 1}, "unknown key 'sed' .did you mean 'seed'"),
        ({"finetune": {"epoch": 1}}, r"x\.finetune: unknown key 'epoch' .did you mean 'epochs'"),
        ({"finetune": 3}, "a table is expected"),
        ({"seed": 1.5}, "int expected"),
        ({"seed": True}, "int expected"),
        ({"seed": "1"}, "int expected"),
        ({"title": 1}, "str expected"),
        ({"finetune": {"lr": "fast"}}, "float expected"),
        ({"finetune": {"lr": True}}, "float expected"),
        ({"finetune": {"compile": 1}}, "bool expected"),
        ({"convert": {"keep": "a"}}, "a list is expected"),
        ({"convert": {"keep": [1]}}, "str expected"),
        ({"convert": {"activation": "hardtan"}}, "none of keep, hardtanh.*did you mean 'hardtanh'"),
        ({"convert": {"activation": ["hardtanh"]}}, "none of"),
        ({"expected": [{"stage": "teacher"}]}, "'top1_percent' is missing"),
        ({"expected": [1]}, "a table is expected"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        from_dict(Recipe, values, "x")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("a = [")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    for path, words in (
        (tmp_path / "none.toml", "No file"),
        (tmp_path, "is a folder"),
        (tmp_path / "bad.toml", "not valid TOML"),
        (tmp_path / "bytes.toml", "not valid TOML"),
        (tmp_path / "bad.toml" / "x.toml", "No file"),
    ):
        with pytest.raises(UsageError, match=words):
            read_toml(path)


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(UsageError, match="No recipe 'nothing'"):
        load_recipe("nothing")


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.title
    assert from_dict(Recipe, to_dict(recipe), name) == recipe
    assert all(0 < e.top1_percent <= 100 and e.source for e in recipe.expected)


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_write_out_every_knob(name: str) -> None:
    """A later version's other default must not change what they do."""
    written, recipe = read_toml(recipe_folder() / f"{name}.toml"), load_recipe(name)
    for section in ("model", "data", "convert", "pretrain", "finetune", "estimator", "distill"):
        names = [field.name for field in dataclasses.fields(getattr(recipe, section))]
        assert list(written[section]) == names, section


@pytest.mark.parametrize(
    "name",
    [
        "cifar10-resnet18",
        "cifar10-vgg_small",
        "imagenet-darts_imagenet",
        "imagenet-efficientnet_b0",
        "imagenet-mobilenet_v2",
        "imagenet-mobilenetv1_100",
        "imagenet-resnet18",
        "imagenet-resnet34",
        "imagenette-resnet18",
    ],
)
def test_recipes_of_the_papers_networks_say_what_they_take(name: str) -> None:
    text, recipe = (recipe_folder() / f"{name}.toml").read_text(), load_recipe(name)
    assert "Hardware and hours:" in text
    assert "not run" in text or all("our log" in expected.source for expected in recipe.expected)


IMAGENET = [name for name in recipe_names() if name.startswith("imagenet-")]


@pytest.mark.parametrize("name", IMAGENET)
def test_a_recipe_that_was_not_run_says_so_in_its_title(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.title.endswith("; not run") or any("our log" in e.source for e in recipe.expected)


@pytest.mark.parametrize("name", IMAGENET)
def test_pretraining_from_published_weights_does_not_undo_them(name: str) -> None:
    recipe = load_recipe(name)
    if recipe.model.weights == "default":
        assert recipe.pretrain.lr <= 0.01
        assert recipe.pretrain.augment is AugmentKind.RANDOM_RESIZED_CROP
