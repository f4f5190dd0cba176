"""dirnet convert: pretrained FP32 network in, binarized network in a run folder out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from dirnet_convert.cli.options import (
    BinarizeOption,
    DataDirOption,
    DataOption,
    DownloadOption,
    ImageSizeOption,
    JsonOption,
    KeepOption,
    ModelArgument,
    OutOption,
    RecipeOption,
    SeedOption,
    SetOption,
    WeightsOption,
    console,
    print_json,
    refuse_options,
)
from dirnet_convert.run import run_of_model

if TYPE_CHECKING:
    from dirnet_convert.convert.new_run import ConvertResult
    from dirnet_convert.evaluate import Accuracy
    from dirnet_convert.recipe import Recipe


def command(
    model: ModelArgument,
    data: DataOption = None,
    data_dir: DataDirOption = None,
    weights: WeightsOption = None,
    keep: KeepOption = None,
    binarize: BinarizeOption = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    image_size: ImageSizeOption = None,
    out: OutOption = None,
    download: DownloadOption = False,
    seed: SeedOption = None,
    json: JsonOption = False,
) -> None:
    """Swap a pretrained network's convolutions for binary ones and calibrate them on real images.

    Example: `dirnet convert resnet20 --data cifar10 --data-dir ~/cifar --weights resnet20.th`
    """
    import dataclasses

    from dirnet_convert.convert.new_run import convert_to_run
    from dirnet_convert.recipe_choice import RecipeChanges, choose_recipe

    if run_of_model(model) is not None:
        refuse_options(model, {"--weights": weights, "--image-size": image_size})
    changes = RecipeChanges(weights, data_dir, image_size, seed, set_ or ())
    chosen, recipe_name = choose_recipe(model, data, recipe, changes)
    options = dataclasses.replace(
        chosen.convert,
        keep=(*chosen.convert.keep, *(keep or ())),
        binarize=(*chosen.convert.binarize, *(binarize or ())),
    )
    chosen = dataclasses.replace(chosen, convert=options)
    result = convert_to_run(chosen, out, download)
    if json:
        print_json(_summary(result, recipe_name))
        return
    _print(result, recipe_name, chosen)


def _summary(result: ConvertResult, recipe_name: str) -> dict[str, object]:
    import dataclasses

    return {
        "run": str(result.run.path),
        "recipe": recipe_name,
        "seed": result.config.recipe.seed,
        "layers": [dataclasses.asdict(layer) for layer in result.network.plan],
        "input_bits": [dataclasses.asdict(layer) for layer in result.bits],
        "original": dataclasses.asdict(result.original) if result.original is not None else None,
        "activations": result.network.structure.activations,
        "shortcuts": result.network.structure.shortcuts,
        "trace_failure": result.network.trace_failure,
        "untraced_modules": result.network.untraced_modules,
        "rbd_weight": result.config.recipe.distill.rbd_weight,
        "notes": result.notes,
    }


def _print(result: ConvertResult, recipe_name: str, asked: Recipe) -> None:
    from dirnet_convert.cli.plan_table import plan_table, plan_totals, trace_lines

    network, config = result.network, result.config
    entropy = {layer.name: f"{layer.entropy_bits:.3f}" for layer in result.bits}
    console.print(plan_table(network.plan, {"entropy": entropy}, console.width))
    console.print(plan_totals(network.plan), highlight=False, soft_wrap=True)
    console.print("Entropy: of a layer's input bits, mean over channels; 1 is balanced.", highlight=False)
    structure = network.structure
    changes = Table.grid(padding=(0, 2))
    changes.add_column()
    # A path is of use as a whole alone.
    changes.add_column(overflow="fold")
    if result.original is not None:
        changes.add_row("original", original_words(result.original, config.classes))
    changes.add_row(
        "activations", f"{len(structure.activations)} ReLU replaced by {config.recipe.convert.activation}"
    )
    changes.add_row("shortcuts", f"{len(structure.shortcuts)} added ({config.recipe.convert.shortcut})")
    changes.add_row(
        "batch norms", f"{len(structure.norms)} added; statistics measured again on the calibration images"
    )
    for sentence in trace_lines(network.trace_failure, network.untraced_modules):
        changes.add_row("graph", escape(sentence))
    if asked.distill.rbd_weight != config.recipe.distill.rbd_weight:
        changes.add_row(
            "teacher", "no representations to compare with its own: distill.rbd_weight is 0 in this run"
        )
    for sentence in result.notes:
        changes.add_row("data", escape(sentence))
    changes.add_row("recipe", escape(recipe_name))
    changes.add_row("seed", str(config.recipe.seed))
    changes.add_row("run", escape(str(result.run.path)))
    console.print(changes)
    console.print("Next: [bold]dirnet finetune[/bold]")


def original_words(original: Accuracy, classes: int) -> str:
    """Return what the original network knows of the images, and a question where that is next to nothing."""
    seen = f"top-1 {original.top1_percent:.1f} % on {original.images} test images"
    chance = 100 / classes
    if original.top1_percent >= chance + min(chance, (100 - chance) / 10):
        return seen
    return (
        f"{seen}, hardly better than chance: are its weights, the order of the classes and the normalization "
        "(data.mean, data.std) those that it was trained with?"
    )
