"""The whole conversion: pretrained network and data set in, run folder out."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dirnet_convert.binarize.layers import BinaryLayer
from dirnet_convert.convert.binarize_network import Binarized, binarize_network
from dirnet_convert.convert.calibrate import LayerBits, calibrate
from dirnet_convert.convert.detector import binarize_detector
from dirnet_convert.convert.rebuild import load_fp32_run, run_entry, save_state
from dirnet_convert.convert.trace import answer_of
from dirnet_convert.data.registry import open_data
from dirnet_convert.data.source import DataInfo, ImageSource
from dirnet_convert.environment import package_versions
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.evaluate import Accuracy, evaluate, module_predictor
from dirnet_convert.files import write_atomic
from dirnet_convert.models.catalog import ModelEntry, find_model, load_pretrained
from dirnet_convert.models.detectors import FeatureForward, check_detections, detector_names
from dirnet_convert.recipe import DataOptions, ModelOptions, Recipe, Task
from dirnet_convert.run import RunConfig, RunFolder, Stage, check_new_run, filled_run
from dirnet_convert.run_data import open_run_data

# A detector's images are large.
DETECTION_BATCH = 16
# Enough test images to see whether the weights and the images belong together.
ORIGINAL_IMAGES = 128


@dataclass(frozen=True)
class ConvertResult:
    """A new run folder, its networks, the entropy of each binary layer's input bits, notes on the images.

    ``original`` is the accuracy of the network before anything changed, on a few test images; None for a
    detector, and without test images.
    """

    run: RunFolder
    config: RunConfig
    network: Binarized
    bits: tuple[LayerBits, ...]
    original: Accuracy | None = None
    notes: tuple[str, ...] = ()


def convert_to_run(recipe: Recipe, out: Path | None = None, download: bool = False) -> ConvertResult:
    """Binarize the pretrained network that ``recipe`` names, calibrate it on its data, and write a run
    folder.

    ``recipe.model.name`` may be the folder of a run of ``pretrain``.

    Raises:
        UsageError: an unknown network or data set, no pretrained weights for these classes, nothing to
            binarize or to learn from, or ``out`` is not empty.
        DirnetError: weights or images that cannot be read or do not fit.
    """
    source_run = _pretrained_run(recipe)
    if source_run is not None:
        return _convert_pretrained(recipe, *source_run, out, download)
    check_new_run(out)
    entry = find_model(recipe.model.name)
    data = open_data(
        recipe.data, image_size=entry.image_size, mean=entry.mean, std=entry.std, download=download
    )
    check_task(entry, data.info)
    network = load_pretrained(entry, recipe.model.weights, data.info.classes)
    config = describe_run(recipe, data.info, Stage.CONVERTED)
    return _write(out, config, entry, network, data)


def _pretrained_run(recipe: Recipe) -> tuple[RunFolder, RunConfig] | None:
    folder = Path(recipe.model.name)
    if not (folder / "run.toml").is_file():
        return None
    run = RunFolder(folder)
    config = run.read_config()
    if config.stage is Stage.PRETRAINING:
        raise UsageError(f"The training of {folder} is not finished; go on with 'dirnet pretrain {folder}'.")
    if config.stage.is_binary:
        raise UsageError(f"{folder} is already binarized; go on with 'dirnet finetune {folder}'.")
    return run, config


def _convert_pretrained(
    recipe: Recipe, source: RunFolder, trained: RunConfig, out: Path | None, download: bool
) -> ConvertResult:
    check_new_run(out)
    # The network was trained on images of this size and normalization; the recipe only says where they lie.
    check_images(recipe.data, trained)
    data_options = dataclasses.replace(
        recipe.data, image_size=trained.image_size, mean=trained.mean, std=trained.std
    )
    data = open_run_data(trained, data_options, download=download)
    check_task(run_entry(source, trained), data.info)
    if data.info.classes != trained.classes:
        raise UsageError(
            f"{source.path} was trained for {trained.classes} classes and the data has {data.info.classes}; "
            f"train it on this data: dirnet pretrain {trained.recipe.model.name} --data {recipe.data.name}."
        )
    model = ModelOptions(trained.recipe.model.name, str(source.model_path))
    recipe = dataclasses.replace(recipe, model=model, data=data_options)
    config = describe_run(recipe, data.info, Stage.CONVERTED)
    return _write(out, config, run_entry(source, trained), load_fp32_run(source), data)


def check_images(asked: DataOptions, config: RunConfig) -> None:
    """Refuse images of another size or normalization than those that a run was made for.

    Raises:
        UsageError: a field of ``asked`` is given, and is another than the run's.
    """
    for field in ("image_size", "mean", "std"):
        value, own = getattr(asked, field), getattr(config, field)
        if value and value not in (own, getattr(config.recipe.data, field)):
            raise UsageError(
                f"data.{field} is {value}, and the run was made for {own}; leave it away, or make a new run."
            )


def _count(recipe: Recipe) -> int:
    if recipe.convert.calibration_images < 1:
        raise UsageError(
            f"convert.calibration_images must be at least 1, not {recipe.convert.calibration_images}."
        )
    return recipe.convert.calibration_images


def check_task(entry: ModelEntry, info: DataInfo) -> None:
    """Refuse images that a network cannot learn from; raises UsageError."""
    if entry.task is info.task:
        return
    if entry.task is Task.DETECTION:
        raise UsageError(
            f"{entry.name} is a detector and data '{info.name}' has no boxes; use --data voc or coco."
        )
    raise UsageError(
        f"{entry.name} is no detector and data '{info.name}' has boxes; name a detector, as "
        f"{', '.join(detector_names())}."
    )


def run_name(recipe: Recipe) -> str:
    """Return a folder name such as cifar10-resnet20."""
    model = recipe.model.name.rpartition(":")[2] if ".py:" in recipe.model.name else recipe.model.name
    words = f"{Path(recipe.data.name.replace('folder:', '')).name}-{Path(model.replace('timm:', '')).name}"
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in words)


def describe_run(recipe: Recipe, info: DataInfo, stage: Stage) -> RunConfig:
    """Return what run.toml says of a network for this data, but for what only the network can tell."""
    return RunConfig(
        recipe=recipe,
        classes=info.classes,
        class_names=info.class_names,
        image_size=info.image_size,
        channels=info.channels,
        mean=info.mean,
        std=info.std,
        stage=stage,
        task=info.task,
        versions=package_versions(),
    )


def keep_source(run: RunFolder, entry: ModelEntry) -> str:
    """Copy the file of a person's own network into the run and return its reference there, or ''."""
    return entry.user.copy_to(run.source_dir) if entry.user is not None else ""


def _write(
    out: Path | None, config: RunConfig, entry: ModelEntry, network: nn.Module, data: ImageSource
) -> ConvertResult:
    recipe = config.recipe
    images = data.calibration_images(_count(recipe), recipe.seed)
    torch.manual_seed(recipe.seed)
    binarize = binarize_detector if config.task is Task.DETECTION else binarize_network
    built = binarize(network, images[:1], recipe.convert, recipe.estimator)
    check_output(built.teacher, images[:1], config)
    config = dataclasses.replace(config, recipe=_learnable(recipe, built))
    original = _original_accuracy(built.teacher, data, config)
    bits = _calibrate(built, images, config)
    _check_finite(built, images[:2], config)
    for part in (built.student, built.teacher, built.student_forward, built.teacher_forward):
        part.eval()
    with filled_run(run_name(recipe), out) as run:
        config = dataclasses.replace(
            config,
            binarized=tuple(n for n, m in built.student.named_modules() if isinstance(m, BinaryLayer)),
            model_source=keep_source(run, entry),
        )
        save_state(built.teacher, run.teacher_path)
        save_state(built.student, run.model_path)
        write_atomic(run.plan_path, json.dumps(_plan_json(built, bits), indent=1))
        # run.toml makes the folder a run, so it comes last.
        run.write_config(config)
    return ConvertResult(run, config, built, bits, original, data.notes)


def _learnable(recipe: Recipe, built: Binarized) -> Recipe:
    """Return ``recipe``, without distillation of representations where ``built`` has none to compare."""
    distill = recipe.distill
    named = distill.representations and not built.trace_failure
    if distill.rbd_weight == 0.0 or built.structure.representations or named:
        return recipe
    if distill.label_weight == 0.0 and distill.logit_weight == 0.0:
        raise UsageError(
            f"{recipe.model.name} has no representations to compare with its teacher's, and nothing else is "
            "to be learnt from; set distill.label_weight or distill.logit_weight above 0."
        )
    return dataclasses.replace(recipe, distill=dataclasses.replace(distill, rbd_weight=0.0))


def _original_accuracy(teacher: nn.Module, data: ImageSource, config: RunConfig) -> Accuracy | None:
    if config.task is Task.DETECTION or not data.test_size:
        return None
    with module_predictor(teacher) as predict:
        return evaluate(predict, data, limit=ORIGINAL_IMAGES)


def _calibrate(built: Binarized, images: torch.Tensor, config: RunConfig) -> tuple[LayerBits, ...]:
    threshold = config.recipe.convert.threshold
    if config.task is not Task.DETECTION:
        return calibrate(built.student, images, threshold)
    bits = calibrate(FeatureForward(built.student), images, threshold, DETECTION_BATCH)
    return tuple(dataclasses.replace(layer, name=layer.name.removeprefix("detector.")) for layer in bits)


def _check_finite(built: Binarized, images: torch.Tensor, config: RunConfig) -> None:
    """Refuse a binary network whose answers are not numbers where its teacher's are."""
    if config.task is Task.DETECTION:
        return
    with torch.no_grad():
        finite = [bool(part.eval()(images).isfinite().all()) for part in (built.teacher, built.student)]
    if finite == [True, False]:
        raise DirnetError(
            "The binary network's answers are not finite. A square root, a logarithm or the like may meet "
            "values below zero that a ReLU kept away; keep those: --set convert.activation=keep."
        )


def check_output(network: nn.Module, image: torch.Tensor, config: RunConfig) -> None:
    """Put ``network`` into eval mode and see whether it answers an image (1, C, H, W) with logits,
    or with boxes.

    Raises:
        UsageError: the output is no tensor, or is for another number of classes.
        DirnetError: the network does not take such an image.
    """
    output = answer_of(network.eval(), image, config.recipe.model.name)
    if config.task is Task.DETECTION:
        check_detections(output, config.recipe.model.name)
        return
    if not isinstance(output, torch.Tensor):
        raise UsageError(
            f"{config.recipe.model.name} returns a {type(output).__name__}; a network must return logits "
            "(N, classes)."
        )
    if output.shape != (1, config.classes):
        raise UsageError(
            f"{config.recipe.model.name} returns {tuple(output.shape)} for one image, but data "
            f"'{config.recipe.data.name}' has {config.classes} classes: (1, {config.classes}) is needed."
        )


def _plan_json(built: Binarized, bits: tuple[LayerBits, ...]) -> dict[str, object]:
    return {
        "layers": [dataclasses.asdict(layer) for layer in built.plan],
        "structure": dataclasses.asdict(built.structure),
        "trace_failure": built.trace_failure,
        "untraced_modules": built.untraced_modules,
        "input_bits": [dataclasses.asdict(layer) for layer in bits],
    }
