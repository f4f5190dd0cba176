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


DETECTOR_SCRIPT = """
import torch
from torch import nn
from dirnet_convert.finetune.detection import DetectionStep
from dirnet_convert.recipe import DistillOptions


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 1, stride=2)

    def forward(self, images, targets):
        return {"loss": self.stem(images.contiguous(memory_format=torch.channels_last)).square().mean()}, ()


torch.manual_seed(1)
detector, images = Detector(), torch.randn(8, 3, 64, 64)
step = DetectionStep(detector, None, DistillOptions(label_weight=1.0), ("loss",))
for _ in range(5):
    detector.zero_grad()
    step(images, [])[0].backward()
got = detector.stem.weight.grad.clone()
detector.zero_grad()
detector.stem.stride = (1, 1)
detector(images[:, :, ::2, ::2], [])[0]["loss"].backward()
torch.testing.assert_close(got, detector.stem.weight.grad)
"""


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-c", *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("channels", "mode"), [(1, "eager"), (3, "eager"), (12, "eager"), (3, "compiled")], ids=str
)
def test_a_strided_pointwise_stem_trains(channels: int, mode: str) -> None:
    _run(SCRIPT, str(channels), mode)


def test_a_detectors_does_too() -> None:
    _run(DETECTOR_SCRIPT)


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
