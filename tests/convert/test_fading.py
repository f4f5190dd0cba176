"""A training that begins as the pretrained network, although shortcuts and activations were changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from dirnet_convert.binarize.fading import Fade, FadingNetwork
from dirnet_convert.convert.binarize_network import Binarized
from dirnet_convert.convert.detector import binarize_detector
from dirnet_convert.convert.fading import with_fading_structure
from dirnet_convert.finetune.norm_tails import with_norm_tails
from dirnet_convert.finetune.schedule import set_estimator_progress, set_estimators, set_structure_progress
from dirnet_convert.models.catalog import find_model
from dirnet_convert.models.cifar_resnet import resnet20
from dirnet_convert.models.vgg_small import vgg_small
from dirnet_convert.recipe import Activation, ConvertOptions, EstimatorOptions

Convert = Callable[..., Binarized]
FADING = EstimatorOptions(gradual_weights=0.5, gradual_inputs=0.5, gradual_structure=0.5)
# Batch normalization's eps sees weights of another size.
NEAR = 0.01


def _basic() -> nn.Module:
    return ResNet(BasicBlock, [2, 1, 1, 1], num_classes=10)


def _bottlenecks() -> nn.Module:
    return ResNet(Bottleneck, [2, 1, 1, 1], num_classes=10)


def _mobilenet() -> nn.Module:
    return torchvision.models.mobilenet_v2(num_classes=10, dropout=0.0)


def _started(built: Binarized) -> Binarized:
    network = with_fading_structure(built)
    set_estimators(network.student, FADING)
    for part in (network.student, network.student_forward, network.teacher):
        part.train()
    return network


def _at(network: Binarized, step: int, first: int = 0) -> None:
    set_estimator_progress(network.student, step, first, 10)
    set_structure_progress(network.student_forward, FADING, step, first, 10)


@torch.no_grad()
def _distances(network: Binarized, images: Tensor) -> tuple[float, float]:
    """Return how far the training's logits are from the teacher's and from the binary network's."""
    logits = network.student_forward(images)[0]
    return tuple(float((logits - other(images)).abs().max()) for other in (network.teacher, network.student))


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("make", [resnet20, _basic, _bottlenecks, _mobilenet, vgg_small])
def test_a_training_begins_as_the_pretrained_network_and_ends_as_the_binary_one(
    make: Callable[[], nn.Module], activation: Activation, convert: Convert
) -> None:
    torch.manual_seed(1)
    print("seed 1")
    images = torch.randn(8, 3, 32, 32)
    network = _started(convert(make(), size=32, activation=activation))
    _at(network, 0)
    to_teacher, to_student = _distances(network, images)
    assert to_teacher < NEAR
    _at(network, 2)
    to_teacher, _ = _distances(network, images)
    assert to_teacher > NEAR
    for step in (5, 9):
        _at(network, step)
        assert _distances(network, images)[1] == 0.0
    if isinstance(network.student_forward, FadingNetwork):
        assert to_student > NEAR and not network.student_forward.fades


def test_structure_may_fade_alone_and_ends_with_the_first_part(convert: Convert) -> None:
    network = _started(convert(resnet20(), size=32))
    blends = {}
    for step in (0, 1, 2, 4, 9):
        set_structure_progress(network.student_forward, FADING, step, 4, 10)
        fade = next(m for m in network.student_forward.modules() if isinstance(m, Fade))
        blends[step] = fade.blend.item() if network.student_forward.fades else 1.0
    assert blends == {0: 0.0, 1: 0.5, 2: 1.0, 4: 1.0, 9: 1.0}
    set_structure_progress(
        network.student_forward, dataclasses.replace(FADING, gradual_structure=0.0), 0, 0, 9
    )
    assert not network.student_forward.fades


def test_representations_fade_too(convert: Convert) -> None:
    torch.manual_seed(2)
    print("seed 2")
    images = torch.randn(8, 3, 32, 32)
    network = _started(convert(resnet20(), size=32))
    network.teacher_forward.train()
    _at(network, 0)
    with torch.no_grad():
        ours, theirs = network.student_forward(images)[1], network.teacher_forward(images)[1]
    assert len(ours) == len(theirs) == 9
    assert all(float((a - b).abs().max()) < NEAR for a, b in zip(ours, theirs, strict=True))


def test_what_a_run_stores_is_as_before(convert: Convert) -> None:
    built = convert(resnet20(), size=32)
    before = list(built.student.state_dict())
    network = _started(built)
    assert list(network.student.state_dict()) == before
    parameters = {id(p) for p in network.student.parameters()}
    assert {id(p) for p in network.student_forward.parameters()} == parameters


@pytest.mark.parametrize("step", [0, 2, 5])
def test_norm_tails_compute_the_same(step: int, convert: Convert) -> None:
    torch.manual_seed(4)
    print("seed 4")
    images = torch.randn(8, 3, 32, 32)
    network = _started(convert(_basic(), size=32))
    _at(network, step)
    found = []
    for _ in range(2):
        logits = network.student_forward(images)[0]
        logits.square().sum().backward()
        weight = network.student.get_submodule("layer1.0.conv1").weight
        found.append((logits.detach(), weight.grad.clone()))
        weight.grad = None
        assert with_norm_tails(network.student_forward) is network.student_forward
    (logits, gradient), (others, other_gradient) = found
    torch.testing.assert_close(logits, others, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(gradient, other_gradient, rtol=1e-2, atol=1e-2 * float(gradient.abs().max()))


class _Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.stem(x))
        return self.head(x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3)))


def test_without_a_graph_or_a_change_nothing_fades(convert: Convert) -> None:
    plain = convert(_Untraceable())
    assert plain.trace_failure
    assert with_fading_structure(plain).student_forward is plain.student_forward
    unchanged = convert(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(1152, 4))
    )
    assert with_fading_structure(unchanged).student_forward is unchanged.student_forward


def test_the_backbone_of_a_detector_fades() -> None:
    torch.manual_seed(6)
    print("seed 6")
    detector = find_model("fasterrcnn_resnet18_fpn").build(3).eval()
    images = torch.randn(2, 3, 64, 64)
    network = _started(binarize_detector(detector, images[:1], ConvertOptions(), EstimatorOptions()))
    seen, backbones = [], []

    def watched(backbone: nn.Module) -> nn.Module:
        backbones.append(backbone)
        return nn.Sequential(backbone, _Keeping(seen))

    network.student_forward.run_backbone_by(watched)
    assert isinstance(backbones[0], FadingNetwork)
    targets = [{"boxes": torch.tensor([[2.0, 3.0, 20.0, 22.0]]), "labels": torch.tensor([1])}] * 2
    for step in (0, 5):
        _at(network, step)
        with torch.no_grad():
            network.student_forward(images, targets)
    with torch.no_grad():
        expected = [network.teacher.backbone(images), network.student.backbone(images)]
    for found, other in zip(seen, expected, strict=True):
        assert all(float((found[0][name] - other[name]).abs().max()) < NEAR for name in other)


class _Keeping(nn.Module):
    def __init__(self, seen: list[object]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, value: object) -> object:
        self.seen.append(value)
        return value
