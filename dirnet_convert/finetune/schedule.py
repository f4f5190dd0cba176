"""What changes with the position in the training: the learning rate, and the estimators' t."""

from __future__ import annotations

import torch
from timm.scheduler import CosineLRScheduler, PolyLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from dirnet_convert.binarize.estimators import Estimator
from dirnet_convert.binarize.layers import BinaryLayer, binary_layers
from dirnet_convert.recipe import EstimatorOptions, ScheduleKind, TrainOptions

# Enough images for a quantile over all positions of a layer's input.
OBSERVED_IMAGES = 32


def learning_rate_schedule(optimizer: Optimizer, options: TrainOptions, steps_per_epoch: int) -> Scheduler:
    """Build the schedule of the learning rate; ``step_update(step)`` sets it from the step alone.

    It rises linearly from 0 over ``warmup_epochs``, then falls to ``lr * min_lr_ratio``.
    """
    total = options.epochs * steps_per_epoch
    warmup = min(round(options.warmup_epochs * steps_per_epoch), total - 1)
    # A warm-up that starts at lr / warmup takes no step of size 0.
    common = {
        "warmup_t": warmup,
        "warmup_lr_init": options.lr / max(warmup, 1),
        "warmup_prefix": True,
        "t_in_epochs": False,
    }
    lowest = options.lr * options.min_lr_ratio
    if options.schedule is ScheduleKind.COSINE:
        return CosineLRScheduler(optimizer, t_initial=total - warmup, lr_min=lowest, **common)
    if options.schedule is ScheduleKind.LINEAR:
        return PolyLRScheduler(optimizer, t_initial=total - warmup, power=1.0, lr_min=lowest, **common)
    return StepLRScheduler(optimizer, decay_t=total + 1, decay_rate=1.0, **common)


def set_estimator_progress(model: nn.Module, fraction: float) -> None:
    """Move every estimator of ``model`` to where it stands after ``fraction`` in [0, 1] of the training."""
    for layer in binary_layers(model):
        layer.weight_estimator.set_progress(fraction)
        layer.input_estimator.set_progress(fraction)


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
    if not layers:
        return
    was_training = model.training

    def observe(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(layer, BinaryLayer):
            layer.observe(inputs[0])

    hooks = [layer.register_forward_pre_hook(observe) for layer in layers]
    try:
        model.eval()
        with torch.no_grad():
            model(images[:OBSERVED_IMAGES])
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
