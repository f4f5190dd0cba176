"""The optimizer, and the moving average of the weights, both timm's."""

from __future__ import annotations

from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from dirnet_convert.errors import UsageError, nearest_name
from dirnet_convert.recipe import TrainOptions


def check_optimizer(options: TrainOptions) -> None:
    """Refuse an optimizer that timm does not have; raises UsageError with the nearest name."""
    names = list_optimizers()
    if options.optimizer not in names:
        nearest = nearest_name(options.optimizer, names)
        raise UsageError(
            f"No optimizer '{options.optimizer}'{nearest}; timm's names are taken, as sgd or adamw."
        )


def build_optimizer(model: nn.Module, options: TrainOptions) -> Optimizer:
    """Build timm's optimizer of that name over ``model``'s parameters that learn.

    Weights of convolutions and linear layers decay; vectors (normalization, biases, thresholds, slopes) do
    not. timm's "sgd" uses Nesterov's momentum, "momentum" the plain one.

    Raises:
        UsageError: timm has no such optimizer.
    """
    check_optimizer(options)
    # PyTorch's own ones can do all of a step in one call.
    fused = {"fused": True} if get_optimizer_class(options.optimizer) in (SGD, Adam, AdamW) else {}
    return create_optimizer_v2(
        model,
        opt=options.optimizer,
        lr=options.lr,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
        filter_bias_and_bn=True,
        **fused,
    )


def build_average(model: nn.Module, options: TrainOptions) -> ModelEmaV3 | None:
    """Build the moving average of ``model``'s weights, or None where ``ema_decay`` is 0.

    Its decay rises to ``ema_decay``, so that a short training forgets its start.
    """
    if options.ema_decay <= 0.0:
        return None
    return ModelEmaV3(model, decay=options.ema_decay, use_warmup=True)
