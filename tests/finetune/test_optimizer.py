"""What optimizers are accepted, and what they are built as."""

from __future__ import annotations

import pytest
import torch
from timm.optim import list_optimizers
from torch import nn

from dirnet_convert.errors import UsageError
from dirnet_convert.finetune.optimizer import build_optimizer, check_optimizer
from dirnet_convert.recipe import TrainOptions


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_every_optimizer_is_built_or_refused_with_a_sentence(momentum: float) -> None:
    built = set()
    for name in list_optimizers():
        options = TrainOptions(optimizer=name, momentum=momentum)
        try:
            check_optimizer(options)
        except UsageError as error:
            assert f"'{name}'" in str(error) and "sgd" in str(error)
        else:
            build_optimizer(nn.Linear(2, 2), options)
            built.add(name)
    assert {"sgd", "momentum", "nesterovw", "adam", "adamw", "lamb", "nlarc"} <= built
    # Its second derivatives need a graph of the gradients.
    assert "adahessian" not in built


def test_without_momentum_sgd_takes_plain_steps() -> None:
    network = nn.Linear(3, 1, bias=False)
    before = network.weight.detach().clone()
    options = TrainOptions(optimizer="sgd", lr=0.5, momentum=0.0, weight_decay=0.0)
    optimizer = build_optimizer(network, options)
    for _ in range(2):
        optimizer.zero_grad()
        network(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    assert torch.equal(network.weight.detach(), before - 0.5 - 0.5)


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(UsageError, match=r"No optimizer 'adamv' \(did you mean"):
        check_optimizer(TrainOptions(optimizer="adamv"))
