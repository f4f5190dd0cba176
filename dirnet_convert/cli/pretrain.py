"""dirnet pretrain: train or adapt the FP32 network that convert will binarize."""

from __future__ import annotations

import shlex

from rich.markup import escape

from dirnet_convert.cli.finetune import EpochsOption, RestartOption, TensorBoardOption
from dirnet_convert.cli.options import (
    DataDirOption,
    DataOption,
    DownloadOption,
    ImageSizeOption,
    JsonOption,
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
from dirnet_convert.run import RunFolder, run_of_model


def command(
    model: ModelArgument,
    data: DataOption = None,
    data_dir: DataDirOption = None,
    weights: WeightsOption = None,
    epochs: EpochsOption = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    image_size: ImageSizeOption = None,
    out: OutOption = None,
    restart: RestartOption = False,
    download: DownloadOption = False,
    tensorboard: TensorBoardOption = False,
    seed: SeedOption = None,
    json: JsonOption = False,
) -> None:
    """Train an FP32 network on one's own data; named by its run folder, a stopped training goes on.

    Example: `dirnet pretrain resnet18 --data folder:photos --epochs 10`
    """
    import contextlib
    import dataclasses
    import functools

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
    from dirnet_convert.recipe_choice import RecipeChanges, choose_recipe
    from dirnet_convert.run_data import placed
    from dirnet_convert.training import new_pretrain_run, pretrain_run, removed_if_refused

    folder = run_of_model(model)
    if folder is not None:
        own = {"--data": data, "--weights": weights, "--recipe": recipe, "--image-size": image_size}
        refuse_options(model, {**own, "--out": out, "--seed": seed})
        chosen = apply_overrides(folder.read_config().recipe, set_ or [])
        if data_dir is not None:
            chosen = dataclasses.replace(chosen, data=placed(chosen.data, data_dir))
    else:
        changes = RecipeChanges(weights, data_dir, image_size, seed, set_ or ())
        chosen, _ = choose_recipe(model, data, recipe, changes)
    if epochs is not None:
        chosen = dataclasses.replace(chosen, pretrain=dataclasses.replace(chosen.pretrain, epochs=epochs))
    keep_freed_memory()
    with open_ranks() as ranks:
        quiet = json or not ranks.is_first
        tell = None if quiet else functools.partial(console.print, highlight=False, soft_wrap=True)
        made, existed = folder is None, out is not None and out.exists()
        if ranks.count > 1 and made:
            # The first process makes the run, the others are told where it is.
            path = ranks.first(new_pretrain_run(chosen, out, download, tell).path if ranks.is_first else None)
            folder = RunFolder(path)
        folder = folder or new_pretrain_run(chosen, out, download, tell)
        if not quiet:
            console.print(f"Run: {folder.path}", highlight=False, markup=False, soft_wrap=True)
        curves = folder.tensorboard_dir if tensorboard and ranks.is_first else None
        with contextlib.ExitStack() as stack:
            if made and ranks.is_first:
                stack.enter_context(removed_if_refused(folder, keep_folder=existed))
            observer = stack.enter_context(training_observer(console, quiet=quiet, curves=curves))
            result = pretrain_run(
                folder, chosen, restart=restart, download=download, observer=observer, ranks=ranks
            )
        if not ranks.is_first:
            return
    if json:
        print_json(result_summary(folder, result))
        return
    state = "is trained already" if result.already_finished else "is trained"
    console.print(
        f"The network {state}: {epochs_words(result.epochs)}, {score_words(result.scores)} "
        f"on the test images, {kept_words(result)}.",
        highlight=False,
        soft_wrap=True,
    )
    # As a shell takes it, spaces in the paths included.
    follows = shlex.join(["dirnet", "convert", str(folder.path), "--data", chosen.data.name])
    console.print(
        f"Next: [bold]{escape(follows)}[/bold]",
        highlight=False,
        soft_wrap=True,
    )
