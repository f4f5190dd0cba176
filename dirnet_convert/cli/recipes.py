"""dirnet recipes: the recipes that are shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dirnet_convert.cli.options import JsonOption, console, print_json


def command(
    name: Annotated[
        str | None, typer.Argument(help="Print this recipe, or .toml file.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the recipes, or print one.

    Example: `dirnet recipes cifar10-resnet20`
    """
    from dirnet_convert.recipe import load_recipe, recipe_folder, recipe_names, to_dict

    if name is not None:
        recipe = load_recipe(name)
        if json:
            print_json(to_dict(recipe))
            return
        path = Path(name) if name.endswith(".toml") else recipe_folder() / f"{name}.toml"
        typer.echo(path.read_text(encoding="utf-8"), nl=False)
        return
    loaded = {recipe_name: load_recipe(recipe_name) for recipe_name in recipe_names()}
    if json:
        print_json({recipe_name: to_dict(recipe) for recipe_name, recipe in loaded.items()})
        return
    # A name has to be typed, so that it is whole on the narrowest terminal; it says network and data.
    table = Table(header_style="bold")
    table.add_column("recipe", no_wrap=True)
    table.add_column("epochs", justify="right")
    table.add_column("what for")
    for recipe_name, recipe in loaded.items():
        table.add_row(recipe_name, str(recipe.finetune.epochs), recipe.title)
    console.print(table)
