"""What changes with the position in the training: the learning rate, the images' size, the estimators, the
weights' bounds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.scheduler import CosineLRScheduler, PolyLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from dirnet_convert.binarize.clip import clip_weight
from dirnet_convert.binarize.estimators import Estimator
from dirnet_convert.binarize.fading import FadingNetwork, scheduled_blend
from dirnet_convert.binarize.layers import BinaryLayer, LayerShares, binary_layers, show_inputs
from dirnet_convert.modes import evaluating
from dirnet_convert.recipe import EstimatorOptions, ScheduleKind, TrainOptions, WeightClip

# Enough images for a quantile over all positions of a layer's input.
OBSERVED_IMAGES = 32


class RateSchedule:
    """The learning rate at each step: a warm-up from 0 over ``warmup_epochs``, then a fall to ``lr *
    min_lr_ratio``; with ``inputs_first`` once for each of the training's two parts."""

    def __init__(self, optimizer: Optimizer, options: TrainOptions, steps_per_epoch: int) -> None:
        total = options.epochs * steps_per_epoch
        self._first = first_part_steps(options, total)
        warmup = round(options.warmup_epochs * steps_per_epoch)
        lengths = [length for length in (self._first, total - self._first) if length > 0]
        self._parts = [_part_schedule(optimizer, options, length, warmup) for length in lengths]

    def step_update(self, step: int) -> None:
        """Set the rate of the step after ``step`` ones, from that number alone."""
        if step < self._first:
            self._parts[0].step_update(step)
        else:
            self._parts[-1].step_update(step - self._first)


def first_part_steps(options: TrainOptions, total_steps: int) -> int:
    """Return the number of steps for which only inputs are binary."""
    return min(round(options.inputs_first * total_steps), total_steps - 1)


def _part_schedule(optimizer: Optimizer, options: TrainOptions, steps: int, warmup: int) -> Scheduler:
    warmup = min(warmup, steps - 1)
    # A warm-up that starts at lr / warmup takes no step of size 0.
    common = {
        "warmup_t": warmup,
        "warmup_lr_init": options.lr / max(warmup, 1),
        "warmup_prefix": True,
        "t_in_epochs": False,
    }
    lowest = options.lr * options.min_lr_ratio
    # A fall of one step is its first one, as that of a longer fall; timm would log a warning.
    fall = max(steps - warmup, 2)
    if options.schedule is ScheduleKind.COSINE:
        return CosineLRScheduler(optimizer, t_initial=fall, lr_min=lowest, **common)
    if options.schedule is ScheduleKind.LINEAR:
        return PolyLRScheduler(optimizer, t_initial=fall, power=1.0, lr_min=lowest, **common)
    return StepLRScheduler(optimizer, decay_t=steps + 1, decay_rate=1.0, **common)


def small_epochs(options: TrainOptions) -> int:
    """Return the number of epochs with images of ``small_image_size`` pixels; the last one is never among
    them."""
    return min(round(options.small_first * options.epochs), options.epochs - 1)


def epoch_image_size(options: TrainOptions, epoch: int) -> int:
    """Return the edge in pixels of the training images of ``epoch`` (from 0); 0 is that of the run."""
    return options.small_image_size if epoch < small_epochs(options) else options.image_size


def small_images_note(options: TrainOptions, run_image_size: int) -> str:
    """Return what a person should know of a training that begins with smaller images, or nothing."""
    if options.small_first == 0.0:
        return ""
    epochs = small_epochs(options)
    if epochs == 0:
        return (
            f"All training images have {options.image_size or run_image_size} pixels: of {options.epochs} "
            f"epochs, a first share of {options.small_first:g} is none."
        )
    again = ", when the step is compiled again" if options.compile else ""
    return (
        f"Training images have {options.small_image_size} pixels in the first {epochs} of {options.epochs} "
        f"epochs and {options.image_size or run_image_size} from then on{again}."
    )


def part_progress(step: int, first: int, total: int) -> float:
    """Return how far ``step`` is into its part of the training, the first ``first`` of ``total`` steps or the
    rest, in [0, 1]."""
    return step / first if step < first else (step - first) / (total - first)


def set_estimator_progress(model: nn.Module, step: int, first: int, total: int) -> None:
    """Move every estimator of ``model`` to where it stands after ``step`` of ``total`` steps.

    Over the ``first`` ones weights stay real and inputs become binary; afterwards weights become binary too.
    Each part has its own course from t_min to t_max.
    """
    fraction = part_progress(step, first, total)
    for layer in binary_layers(model):
        layer.weight_estimator.set_progress(fraction, blend=0.0 if step < first else None)
        layer.input_estimator.set_progress(fraction, blend=1.0 if 0 < first <= step else None)


def set_structure_progress(
    forward: nn.Module, options: EstimatorOptions, step: int, first: int, total: int
) -> None:
    """Move what fades around binary layers of ``forward`` to where it stands after ``step`` of ``total``
    steps; it has ended when the ``first`` ones have."""
    fraction = 1.0 if 0 < first <= step else part_progress(step, first, total)
    for module in forward.modules():
        if isinstance(module, FadingNetwork):
            module.set_blend(scheduled_blend(fraction, options.gradual_structure))


def fading_note(options: EstimatorOptions, train: TrainOptions) -> str:
    """Return what a person should know of a training in which something fades, or nothing."""
    share = max(options.gradual_weights, options.gradual_inputs, options.gradual_structure)
    if share == 0.0:
        return ""
    structure = options.gradual_structure > 0.0
    what = "The pretrained network fades into the binary one" if structure else "Real values fade into signs"
    whole = "each part of the training" if train.inputs_first > 0.0 else "the training"
    again = ", when the step is compiled again" if train.compile else ""
    return (
        f"{what} over the first {100 * share:g} % of {whole}; the test "
        f"accuracy is that of the binary network all along, and may stay near chance until then{again}."
    )


def clip_weights(model: nn.Module, options: EstimatorOptions, fraction: float) -> None:
    """Hold the latent weights of ``model``'s binary layers as ``options.clip`` says."""
    if options.clip is not WeightClip.NONE:
        for layer in binary_layers(model):
            clip_weight(layer.weight, options, fraction)


def set_estimators(model: nn.Module, options: EstimatorOptions) -> None:
    """Give every binary layer of ``model`` new estimators by ``options``."""
    for layer in binary_layers(model):
        device = layer.weight.device
        layer.weight_estimator = Estimator.for_weights(options).to(device).train(layer.training)
        layer.input_estimator = Estimator.for_inputs(options).to(device).train(layer.training)


def observe_distributions(model: nn.Module, images: Tensor) -> None:
    """Show DTE the distributions of ``model``'s binary layers on a few ``images`` (N, C, H, W).

    Runs the network once in eval mode, so that normalization statistics and random states are left as they
    are; does nothing where no estimator asks for it.
    """
    layers = [
        layer
        for layer in binary_layers(model)
        if layer.weight_estimator.needs_quantile or layer.input_estimator.needs_quantile
    ]
    if layers:
        _show_inputs(model, images, dict.fromkeys(layers, BinaryLayer.observe))


def receiving_shares(student: nn.Module, model: nn.Module, images: Tensor) -> tuple[LayerShares, ...]:
    """Return the shares of weights and inputs that receive gradient in each binary layer of ``student``.

    ``model`` runs ``student`` on a few ``images`` (N, C, H, W), in eval mode as observe_distributions does;
    layers that they do not pass through are left out.
    """
    found: dict[str, LayerShares] = {}

    def measure(name: str) -> Callable[[BinaryLayer, Tensor], None]:
        def keep(layer: BinaryLayer, x: Tensor) -> None:
            found.setdefault(name, layer.receiving_shares(name, x))

        return keep

    layers = {module: measure(n) for n, module in student.named_modules() if isinstance(module, BinaryLayer)}
    _show_inputs(model, images, layers)
    return tuple(found.values())


def _show_inputs(
    model: nn.Module, images: Tensor, layers: dict[BinaryLayer, Callable[[BinaryLayer, Tensor], None]]
) -> None:
    """Run ``model`` once in eval mode and show each layer's input to its function."""
    hooks = [show_inputs(layer, to) for layer, to in layers.items()]
    try:
        with evaluating(model), torch.no_grad():
            model(images[:OBSERVED_IMAGES])
    finally:
        for hook in hooks:
            hook.remove()
