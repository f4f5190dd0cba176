"""The optimizer, and the moving average of the weights, both timm's."""

from __future__ import annotations

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, get_optimizer_info, list_optimizers
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from dirnet_convert.errors import UsageError, nearest_name
from dirnet_convert.recipe import TrainOptions


def check_optimizer(options: TrainOptions) -> None:
    """Refuse an optimizer that cannot train here.

    Raises:
        UsageError: timm has no such optimizer, what it needs is not here, or it needs second derivatives.
    """
    names = list_optimizers()
    if options.optimizer not in names:
        nearest = nearest_name(options.optimizer, names)
        raise UsageError(
            f"No optimizer '{options.optimizer}'{nearest}; timm's names are taken, as sgd or adamw."
        )
    if get_optimizer_info(options.optimizer).second_order:
        raise UsageError(
            f"Optimizer '{options.optimizer}' needs second derivatives, which are not computed here; "
            "take another, as sgd or adamw."
        )
    try:
        _created(nn.ParameterList([torch.zeros(1, 1)]), options)
    except (AssertionError, ImportError, TypeError, ValueError) as error:
        raise UsageError(
            f"Optimizer '{options.optimizer}' cannot be used here ({error}); take another, as sgd or adamw."
        ) from error


def build_optimizer(model: nn.Module, options: TrainOptions) -> Optimizer:
    """Build timm's optimizer of that name over ``model``'s parameters that learn.

    Weights of convolutions and linear layers decay; vectors (normalization, biases, thresholds, slopes) do
    not. timm's "sgd" uses Nesterov's momentum, "momentum" the plain one.

    Raises:
        UsageError: it cannot train here.
    """
    check_optimizer(options)
    return _created(model, options)


def _created(model: nn.Module, options: TrainOptions) -> Optimizer:
    # PyTorch's own ones can do all of a step in one call.
    own = {"fused": True} if get_optimizer_class(options.optimizer) in (SGD, Adam, AdamW) else {}
    if options.momentum == 0.0 and "nesterov" in (get_optimizer_info(options.optimizer).defaults or {}):
        # Without momentum Nesterov's is the plain step, for which it is not taken.
        own["nesterov"] = False
    return create_optimizer_v2(
        model,
        opt=options.optimizer,
        lr=options.lr,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
        filter_bias_and_bn=True,
        **own,
    )


def build_average(model: nn.Module, options: TrainOptions) -> ModelEmaV3 | None:
    """Build the moving average of ``model``'s weights, or None where ``ema_decay`` is 0.

    Its decay rises to ``ema_decay``, so that a short training forgets its start.
    """
    if options.ema_decay <= 0.0:
        return None
    return ModelEmaV3(model, decay=options.ema_decay, use_warmup=True)
