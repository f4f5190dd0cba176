"""The trainings of a run folder: fine-tuning of a converted network, pretraining of an FP32 one."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from dirnet_convert.convert.fading import with_fading_structure
from dirnet_convert.convert.new_run import (
    check_images,
    check_output,
    check_task,
    describe_run,
    keep_source,
    run_name,
)
from dirnet_convert.convert.rebuild import (
    check_other_sizes,
    example_image,
    load_fp32_run,
    load_run,
    save_state,
)
from dirnet_convert.convert.representations import with_representations
from dirnet_convert.convert.tracer import cause_of
from dirnet_convert.data.registry import open_data
from dirnet_convert.data.source import ImageSource
from dirnet_convert.errors import UsageError, few
from dirnet_convert.finetune.acceptance import accept_job, check_options
from dirnet_convert.finetune.checkpoint import drop_checkpoint
from dirnet_convert.finetune.job import TrainJob, TrainResult
from dirnet_convert.finetune.loop import train
from dirnet_convert.finetune.observer import TrainObserver
from dirnet_convert.finetune.ranks import Ranks, one_process
from dirnet_convert.finetune.schedule import set_estimators
from dirnet_convert.finetune.selection import part_training_images
from dirnet_convert.models.catalog import ModelEntry, Origin, find_model, load_for_training
from dirnet_convert.models.detector_forward import DetectorForward
from dirnet_convert.recipe import DistillOptions, Recipe, Task
from dirnet_convert.run import RunConfig, RunFolder, Stage, check_new_run, filled_run
from dirnet_convert.run_data import open_run_data


def finetune_run(
    run: RunFolder,
    recipe: Recipe | None = None,
    *,
    restart: bool = False,
    download: bool = False,
    observer: TrainObserver | None = None,
    ranks: Ranks | None = None,
) -> TrainResult:
    """Train the binarized network of ``run`` with its FP32 network as the teacher, going on where it stopped.

    ``recipe`` (the run's own, if absent) says how; it is kept in the run. ``restart`` begins a new training
    from the present weights. Of several processes each calls this with its own ``ranks``.

    Raises:
        UsageError: the recipe differs in what was decided at the conversion, or cannot be trained with.
        DirnetError: the training diverged, or was stopped.
    """
    config = run.read_config()
    recipe = recipe or config.recipe
    if (recipe.model, recipe.convert) != (config.recipe.model, config.recipe.convert):
        raise UsageError(
            "The sections model and convert were decided when the run was converted; convert anew for others."
        )
    network = load_run(run)
    if network.trace_failure and config.task is not Task.DETECTION:
        _check_trained_output(network.student, config)
    if recipe.distill.representations and config.task is not Task.DETECTION:
        network = with_representations(network, recipe.distill.representations)
    if recipe.distill.rbd_weight > 0.0 and not network.structure.representations:
        raise UsageError(
            f"{recipe.model.name} has no representations to compare with its teacher's; train without, with "
            "--set distill.rbd_weight=0."
        )
    if recipe.estimator.gradual_structure > 0.0:
        network = with_fading_structure(network)
    set_estimators(network.student, recipe.estimator)
    job = TrainJob(
        run=run,
        stage=Stage.FINETUNED,
        student=network.student,
        student_forward=network.student_forward,
        teacher_forward=network.teacher_forward,
        data=_data_of(config, recipe, download),
        options=recipe.finetune,
        distill=recipe.distill,
        estimator=recipe.estimator,
        seed=recipe.seed,
        ranks=ranks or one_process(),
    )
    return _train(job, dataclasses.replace(config, recipe=recipe), restart, observer)


def pretrain_run(
    run: RunFolder,
    recipe: Recipe | None = None,
    *,
    restart: bool = False,
    download: bool = False,
    observer: TrainObserver | None = None,
    ranks: Ranks | None = None,
) -> TrainResult:
    """Train the FP32 network of ``run``, made by ``new_pretrain_run``, going on where it stopped.

    Raises:
        UsageError: this is a run of ``convert``, or the recipe names another network.
        DirnetError: the training diverged, or was stopped.
    """
    config = run.read_config()
    recipe = recipe or config.recipe
    if config.stage.is_binary:
        raise UsageError(f"{run.path} is binarized; train it with 'dirnet finetune {run.path}'.")
    if recipe.model != config.recipe.model:
        raise UsageError(
            f"{run.path} holds {config.recipe.model.name}, another network or weights; make a new run."
        )
    network = load_fp32_run(run)
    if config.task is not Task.DETECTION:
        _check_trained_output(network, config)
    detects = config.task is Task.DETECTION
    job = TrainJob(
        run=run,
        stage=Stage.PRETRAINED,
        student=network,
        student_forward=DetectorForward(network, network.backbone) if detects else network,
        teacher_forward=None,
        data=_data_of(config, recipe, download),
        options=recipe.pretrain,
        distill=DistillOptions(label_weight=1.0, logit_weight=0.0, rbd_weight=0.0),
        estimator=None,
        seed=recipe.seed,
        ranks=ranks or one_process(),
    )
    return _train(job, dataclasses.replace(config, recipe=recipe), restart, observer)


def _check_trained_output(network: nn.Module, config: RunConfig) -> None:
    """Refuse a network that fails while it is trained, or returns more than its logits, which a graph, traced
    for inference, would not."""
    images, name = torch.cat([example_image(config)] * 2), config.recipe.model.name
    # A copy, as training moves the statistics of batch norms.
    trained = copy.deepcopy(network).train()
    try:
        with torch.no_grad():
            output = trained(images)
    except Exception as error:  # a person's own code may raise anything, and is told what
        raise UsageError(
            f"{name} cannot be trained: in train mode it does not take {len(images)} images "
            f"({type(error).__name__}: {cause_of(error)}), as it does in eval mode."
        ) from error
    if not isinstance(output, torch.Tensor):
        raise UsageError(
            f"{name} returns a {type(output).__name__} while it is trained; it must "
            "return its logits (N, classes) alone, without auxiliary ones."
        )


def _check_one_image(job: TrainJob, image_size: int) -> None:
    """Refuse batches of one image where a batch norm sees maps of one pixel, whose variance nothing gives."""
    image = torch.zeros(1, job.data.info.channels, image_size, image_size)
    try:
        with torch.no_grad():
            copy.deepcopy(job.student).train()(image)
    except ValueError as error:
        raise UsageError(
            f"{job.section}.batch_size is 1, and at {image_size} pixels this network does not learn from one "
            f"image at a time ({cause_of(error)}); take 2 or more."
        ) from error


@contextlib.contextmanager
def removed_if_refused(run: RunFolder, *, keep_folder: bool) -> Iterator[None]:
    """Remove the new ``run`` where its training is refused before the first step, so that no untrained one
    stays behind as the newest; with ``keep_folder`` its folder was there before and stays, empty."""
    try:
        yield
    except UsageError:
        if not run.checkpoint_dir.exists():
            shutil.rmtree(run.path, ignore_errors=True)
            if keep_folder:
                run.path.mkdir()
        raise


def new_pretrain_run(
    recipe: Recipe,
    out: Path | None = None,
    download: bool = False,
    tell: Callable[[str], None] | None = None,
) -> RunFolder:
    """Make a run folder with the FP32 network that ``recipe`` names, its weights loaded or random.

    ``tell`` is told which tensors the weights do not have, in a sentence.

    Raises:
        UsageError: an unknown network or data set, or ``out`` is not empty.
        DirnetError: weights or images that cannot be read or do not fit.
    """
    entry = find_model(recipe.model.name)
    check_new_run(out)
    data = _data_for(entry, recipe, download)
    check_task(entry, data.info)
    torch.manual_seed(recipe.seed)
    network, new = load_for_training(entry, recipe.model.weights, data.info.classes)
    total = len(network.state_dict())
    if tell is not None and 0 < len(new) < total:
        tell(f"{len(new)} of {total} tensors start at random, no weights fit them: {few(new)}.")
    config = describe_run(recipe, data.info, Stage.PRETRAINING)
    check_output(network, example_image(config), config)
    with filled_run(f"{run_name(recipe)}-fp32", out) as run:
        config = dataclasses.replace(config, model_source=keep_source(run, entry))
        save_state(network, run.model_path)
        run.write_config(config)
    return run


def _train(job: TrainJob, config: RunConfig, restart: bool, observer: TrainObserver | None) -> TrainResult:
    parted, _ = part_training_images(job)
    check_options(parted)
    asked = {option: getattr(job.options, option) for option in ("image_size", "small_image_size")}
    sizes = {f"{job.section}.{option}": size for option, size in asked.items() if size}
    if sizes:
        check_other_sizes(job.run, config, sizes)
    if job.options.batch_size == 1 and config.task is not Task.DETECTION:
        _check_one_image(job, min([config.image_size, *sizes.values()]))
    if restart and job.ranks.is_first:
        drop_checkpoint(job.run)
    job.ranks.wait()
    accept_job(parted)
    # The recipe is kept before the first step, so that a plain command goes on with the same one.
    if job.ranks.is_first:
        job.run.write_config(config)
    result = train(dataclasses.replace(job, restarted=restart), observer)
    if job.ranks.is_first:
        job.run.write_config(dataclasses.replace(config, stage=job.stage))
    return result


def _data_for(entry: ModelEntry, recipe: Recipe, download: bool) -> ImageSource:
    weights = recipe.model.weights
    # A detector's boxes and its backbone are made for one normalization, trained or not.
    made_for = weights != "none" and (weights != "default" or entry.classes)
    if made_for or entry.task is Task.DETECTION:
        return open_data(
            recipe.data, image_size=entry.image_size, mean=entry.mean, std=entry.std, download=download
        )
    # From random weights a network takes the images as they are; our own ones are made for 32 pixels.
    image_size = entry.image_size if entry.origin is Origin.OWN else 0
    return open_data(recipe.data, image_size=image_size, download=download)


def _data_of(config: RunConfig, recipe: Recipe, download: bool) -> ImageSource:
    check_images(recipe.data, config)
    options = dataclasses.replace(recipe.data, image_size=config.image_size, mean=config.mean, std=config.std)
    data = open_run_data(config, options, download=download)
    if data.info.classes != config.classes:
        raise UsageError(
            f"The run is for {config.classes} classes and data '{data.info.name}' has {data.info.classes}."
        )
    return data
