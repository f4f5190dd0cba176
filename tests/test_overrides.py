"""Single values of a recipe are set from the command line."""

from __future__ import annotations

import pytest

from dirnet_convert.errors import UsageError
from dirnet_convert.overrides import apply_overrides
from dirnet_convert.recipe import Activation, Recipe


def test_values_are_set() -> None:
    recipe = apply_overrides(
        Recipe(),
        [
            "finetune.lr=0.05",
            "finetune.weight_decay=1",
            "finetune.compile = false",
            "convert.keep=['a', 'b.*']",
            "convert.activation=prelu",
            'model.name="resnet20"',
            "model.weights=a=b.th",
            "data.dir=2024",
            "seed=7",
        ],
    )
    assert recipe.finetune.lr == 0.05
    assert recipe.finetune.weight_decay == 1.0 and type(recipe.finetune.weight_decay) is float
    assert recipe.finetune.compile is False
    assert recipe.convert.keep == ("a", "b.*")
    assert recipe.convert.activation is Activation.PRELU
    assert recipe.model.name == "resnet20"
    assert recipe.model.weights == "a=b.th"
    assert recipe.data.dir == "2024"
    assert recipe.seed == 7
    assert recipe.pretrain == Recipe().pretrain


def test_the_last_one_wins_and_the_given_recipe_stays() -> None:
    given = Recipe()
    assert apply_overrides(given, ["seed=1", "seed=2"]).seed == 2
    assert given == Recipe()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("finetune.lr", "section.key=value"),
        ("finetune.lrr=1", "no 'lrr' .did you mean 'lr'"),
        ("finetun.lr=1", "no 'finetun' .did you mean 'finetune'"),
        ("finetune=1", "is a section; name one of epochs"),
        ("seed.x=1", "no 'x'"),
        ("=1", "no ''"),
        ("seed=fast", "int expected"),
        ("seed=1.5", "int expected"),
        ("finetune.compile=yes", "bool expected"),
        ("finetune.lr=2020-01-01", "float expected"),
        ("convert.keep=a", "a list is expected"),
        ("convert.activation=relu", "none of"),
    ],
)
def test_what_is_wrong_is_named(override: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        apply_overrides(Recipe(), [override])
