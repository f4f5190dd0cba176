"""The ranges of a recipe's numbers, checked before anything is written."""

from __future__ import annotations

import math

from dirnet_convert.errors import UsageError
from dirnet_convert.recipe import DistillOptions, EstimatorOptions, Recipe, TrainOptions

# What torch, numpy and Python's own generator all take.
SEED_LIMIT = 2**63


def check_ranges(recipe: Recipe) -> None:
    """Refuse numbers that no conversion or training can work with.

    Raises:
        UsageError: a value out of its range; the sentence names it and the range.
    """
    if not 0 <= recipe.seed < SEED_LIMIT:
        raise UsageError(f"seed is {recipe.seed}; it must be at least 0 and below 2**63.")
    check_training(recipe.pretrain, "pretrain")
    check_training(recipe.finetune, "finetune")
    check_estimator(recipe.estimator)
    check_distill(recipe.distill)


def check_training(options: TrainOptions, section: str) -> None:
    """Refuse a training's numbers; ``section`` is the recipe's section that holds them.

    Raises:
        UsageError: a value out of its range.
    """
    for name, valid, rule in (
        ("epochs", options.epochs >= 1, "at least 1"),
        ("batch_size", options.batch_size >= 1, "at least 1"),
        ("lr", 0 < options.lr < math.inf, "above 0 and finite"),
        ("warmup_epochs", 0 <= options.warmup_epochs < math.inf, "at least 0 and finite"),
        ("min_lr_ratio", 0 <= options.min_lr_ratio <= 1, "between 0 and 1"),
        ("label_smoothing", 0 <= options.label_smoothing < 1, "at least 0 and below 1"),
        ("ema_decay", 0 <= options.ema_decay < 1, "at least 0 and below 1"),
        ("weight_decay", 0 <= options.weight_decay < math.inf, "at least 0 and finite"),
        ("clip_grad_norm", 0 <= options.clip_grad_norm < math.inf, "at least 0 and finite"),
        ("momentum", 0 <= options.momentum < 1, "at least 0 and below 1"),
        ("checkpoint_minutes", options.checkpoint_minutes >= 0, "at least 0"),
        ("region_samples", options.region_samples >= 0, "at least 0"),
        ("holdout", 0 <= options.holdout < 1, "at least 0 and below 1"),
        ("inputs_first", 0 <= options.inputs_first < 1, "at least 0 and below 1"),
        ("crop_area_min", 0 < options.crop_area_min <= 1, "above 0 and at most 1"),
        ("image_size", options.image_size >= 0, "at least 0"),
        ("small_image_size", options.small_image_size >= 0, "at least 0"),
        ("small_first", 0 <= options.small_first < 1, "at least 0 and below 1"),
        ("norm_images", options.norm_images == 0 or options.norm_images >= 2, "0, or at least 2"),
    ):
        if not valid:
            raise UsageError(f"{section}.{name} is {getattr(options, name)}; it must be {rule}.")
    if (options.small_image_size > 0) != (options.small_first > 0):
        raise UsageError(
            f"{section}.small_image_size is {options.small_image_size} and {section}.small_first "
            f"{options.small_first}; set both, or leave both at 0."
        )


def check_estimator(estimator: EstimatorOptions) -> None:
    """Refuse the estimators' numbers; raises UsageError for a value out of its range."""
    for name, valid, rule in (
        ("t_min", 0 < estimator.t_min < math.inf, "above 0 and finite"),
        ("t_max", 0 < estimator.t_max < math.inf, "above 0 and finite"),
        ("epsilon", 0 <= estimator.epsilon < 1, "at least 0 and below 1"),
        ("window", 0 < estimator.window < math.inf, "above 0 and finite"),
        ("power_max", 1 <= estimator.power_max < math.inf, "at least 1 and finite"),
        ("input_t_min", 0 <= estimator.input_t_min < math.inf, "at least 0 and finite"),
        ("input_t_max", 0 <= estimator.input_t_max < math.inf, "at least 0 and finite"),
        (
            "input_epsilon",
            0 <= estimator.input_epsilon < 1 or estimator.input_epsilon == -1,
            "below 1, or -1",
        ),
        ("input_window", 0 <= estimator.input_window < math.inf, "at least 0 and finite"),
        ("quantile_steps", estimator.quantile_steps >= 1, "at least 1"),
        ("clip_bound", 0 < estimator.clip_bound < math.inf, "above 0 and finite"),
        ("clip_tau_min", 0.5 < estimator.clip_tau_min < 1, "between 0.5 and 1"),
        ("clip_tau_max", 0.5 < estimator.clip_tau_max < 1, "between 0.5 and 1"),
        ("gradual_weights", 0 <= estimator.gradual_weights <= 1, "between 0 and 1"),
        ("gradual_inputs", 0 <= estimator.gradual_inputs <= 1, "between 0 and 1"),
        ("gradual_structure", 0 <= estimator.gradual_structure <= 1, "between 0 and 1"),
    ):
        if not valid:
            raise UsageError(f"estimator.{name} is {getattr(estimator, name)}; it must be {rule}.")


def check_distill(distill: DistillOptions) -> None:
    """Refuse the weights of a distillation; raises UsageError for a value out of its range."""
    weights = (distill.label_weight, distill.logit_weight, distill.rbd_weight)
    if not all(0 <= weight < math.inf for weight in weights) or max(weights) == 0:
        raise UsageError(
            "distill's label_weight, logit_weight and rbd_weight must be at least 0, and one of them above."
        )
    if not 0 < distill.temperature < math.inf:
        raise UsageError(f"distill.temperature is {distill.temperature}; it must be above 0.")
    if distill.teacher_norm_images < 0:
        raise UsageError(
            f"distill.teacher_norm_images is {distill.teacher_norm_images}; it must be at least 0."
        )
