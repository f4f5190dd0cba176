"""dirnet finetune: train the binarized network, with the original one as its teacher."""

from __future__ import annotations

from typing import Annotated

import typer

from dirnet_convert.cli.options import (
    DataDirOption,
    DownloadOption,
    JsonOption,
    RunArgument,
    RunOption,
    SetOption,
    console,
    named_run,
    print_json,
)

EpochsOption = Annotated[
    int | None, typer.Option("--epochs", min=1, help="Length of the whole training.", show_default=False)
]
RestartOption = Annotated[
    bool, typer.Option("--restart", help="Begin a new training from the run's present weights.")
]

TensorBoardOption = Annotated[
    bool, typer.Option("--tensorboard", help="Write curves for TensorBoard into the run's tensorboard/.")
]


def command(
    named: RunArgument = None,
    run: RunOption = None,
    epochs: EpochsOption = None,
    data_dir: DataDirOption = None,
    set_: SetOption = None,
    restart: RestartOption = False,
    download: DownloadOption = False,
    tensorboard: TensorBoardOption = False,
    json: JsonOption = False,
) -> None:
    """Train the binarized network of a run; stopped by Ctrl-C or a crash, the same command goes on.

    A finished training goes on, too, where --epochs asks for more: the schedules are stretched. Started by
    torchrun, its processes train together, with finetune.batch_size images each in a step.

    Example: `dirnet finetune --epochs 12 --set finetune.lr=0.05`
    """
    import dataclasses

    from dirnet_convert.cli.allocator import keep_freed_memory
    from dirnet_convert.cli.training_progress import (
        epochs_words,
        kept_words,
        result_summary,
        score_words,
        training_observer,
    )
    from dirnet_convert.finetune.ranks import open_ranks
    from dirnet_convert.overrides import apply_overrides
    from dirnet_convert.run import open_run
    from dirnet_convert.run_data import placed
    from dirnet_convert.training import finetune_run

    folder = open_run(named_run(named, run))
    recipe = apply_overrides(folder.read_config().recipe, set_ or [])
    if epochs is not None:
        recipe = dataclasses.replace(recipe, finetune=dataclasses.replace(recipe.finetune, epochs=epochs))
    if data_dir is not None:
        recipe = dataclasses.replace(recipe, data=placed(recipe.data, data_dir))
    keep_freed_memory()
    with open_ranks() as ranks:
        curves = folder.tensorboard_dir if tensorboard and ranks.is_first else None
        with training_observer(console, quiet=json or not ranks.is_first, curves=curves) as observer:
            result = finetune_run(
                folder, recipe, restart=restart, download=download, observer=observer, ranks=ranks
            )
        if not ranks.is_first:
            return
    if json:
        print_json(result_summary(folder, result))
        return
    if result.already_finished:
        console.print(
            f"This run is trained: {epochs_words(result.epochs)}, {score_words(result.scores)}. --epochs "
            "N goes on to N epochs, --restart begins anew.",
            highlight=False,
            soft_wrap=True,
        )
        return
    console.print(
        f"Trained {epochs_words(result.epochs)}: {score_words(result.scores)} on the test images, "
        f"{kept_words(result)}. Run: {folder.path}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    console.print("Next: [bold]dirnet export[/bold]")
