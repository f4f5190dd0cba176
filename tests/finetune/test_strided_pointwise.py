"""Convolutions that PyTorch cannot train in channels last on some processors train nevertheless."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from dirnet_convert.finetune.losses import Objective
from dirnet_convert.finetune.step import TrainingStep
from dirnet_convert.recipe import DistillOptions, Precision

# A process of its own, since what goes wrong writes where it should not.
SCRIPT = """
import sys, torch
from torch import nn
from torch.nn import functional
from dirnet_convert.finetune.losses import Objective
from dirnet_convert.finetune.step import Compiled, TrainingStep
from dirnet_convert.recipe import DistillOptions, Precision

channels, compiled = int(sys.argv[1]), sys.argv[2] == "compiled"
torch.manual_seed(1)
stem = nn.Conv2d(channels, 24, 1, stride=2)
network = nn.Sequential(stem, nn.ReLU(), nn.Conv2d(24, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
step = TrainingStep(network, None, Objective(DistillOptions(), 0.0), Precision.FLOAT32)
if compiled:
    step.compile_computation(lambda function: Compiled(function, print))
images, labels = torch.randn(8, channels, 64, 64), torch.arange(8)
for _ in range(5):
    network.zero_grad()
    step(images, labels)[0].backward()
got = stem.weight.grad.clone()
network.zero_grad()
# Every second pixel, so that there is no stride.
wide = functional.conv2d(images[:, :, ::2, ::2], stem.weight, stem.bias)
functional.cross_entropy(network[1:](wide), labels).backward()
torch.testing.assert_close(got, stem.weight.grad)
"""


@pytest.mark.parametrize(
    ("channels", "mode"), [(1, "eager"), (3, "eager"), (12, "eager"), (3, "compiled")], ids=str
)
def test_a_strided_pointwise_stem_trains(channels: int, mode: str) -> None:
    arguments = [sys.executable, "-c", SCRIPT, str(channels), mode]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_evaluation_is_as_it_was() -> None:
    stem = nn.Conv2d(3, 8, 1, stride=2)
    images = torch.randn(2, 3, 9, 8)
    expected = stem(images)
    network = nn.Sequential(stem).eval()
    TrainingStep(network, None, Objective(DistillOptions(), 0.0), Precision.FLOAT32)
    assert network(images).equal(expected)
    # A copy convolves with its own weights.
    twin = copy.deepcopy(network).train()
    with torch.no_grad():
        twin[0].weight.zero_()
    assert twin(images).equal(twin[0].bias.view(-1, 1, 1).expand(2, 8, 5, 4))
    torch.testing.assert_close(network.train()(images), expected)
