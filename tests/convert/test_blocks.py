"""Residual blocks are found through gates, scales, drops and parted branches, and borders and norms fit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d, SqueezeExcitation, StochasticDepth

from dirnet_convert.binarize.layers import BinaryConv2d, BinaryLinear
from dirnet_convert.binarize.norms import LastAxisBatchNorm
from dirnet_convert.convert.binarize_network import Binarized
from dirnet_convert.convert.calibrate import calibrate
from dirnet_convert.models.catalog import find_model
from dirnet_convert.recipe import Activation, Threshold

Convert = Callable[..., Binarized]


class _Scale(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Split(nn.Module):
    """Other kernels for each half of the channels, as mixed convolutions have."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.convs = nn.ModuleList(nn.Conv2d(half, half, k, padding=k // 2, groups=half) for k in (3, 5))

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x, x.shape[1] // 2, 1)
        return torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], 1)


class _Block(nn.Module):
    def __init__(self, between: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.between, self.last = between, last

    def forward(self, x: Tensor) -> Tensor:
        y = self.between(functional.relu(self.bn1(self.conv1(x))))
        return functional.relu(self.last(self.bn2(self.conv2(y))) + x)


def _net(*middle: nn.Module, channels: int = 8) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), *middle),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)),
    )


@pytest.mark.parametrize(
    ("between", "last"),
    [
        (nn.Identity, nn.Identity),
        (nn.Identity, lambda: SqueezeExcitation(8, 4)),
        (lambda: SqueezeExcitation(8, 4), lambda: StochasticDepth(0.5, "row")),
        (nn.Identity, lambda: nn.Sequential(_Scale(8), DropPath(0.3))),
        (lambda: nn.Dropout2d(0.1), lambda: _Scale(8)),
    ],
)
def test_a_block_is_found_through_what_stands_on_its_branch(
    between: Callable[[], nn.Module], last: Callable[[], nn.Module], convert: Convert
) -> None:
    built = convert(_net(_Block(between(), last())))
    structure = built.structure
    # One shortcut around the first convolution; the block's own add serves the second.
    assert len(structure.shortcuts) == 1
    assert [r.teacher for r in structure.representations] == ["relu_1"]
    # The stem's ReLU, the one inside, and the one that ends the block; a gate's own stays.
    assert len(structure.activations) == 3
    add = next(n for n in built.student.graph.nodes if n.name == "add" or n.name.startswith("add_"))
    assert add.op == "call_function"


def test_a_branch_that_parts_keeps_the_blocks_shortcut(convert: Convert) -> None:
    built = convert(_net(_Block(_Split(8), nn.Identity())))
    names = {n.name: n for n in built.student.graph.nodes}
    assert len(built.structure.shortcuts) == 1 and len(built.structure.representations) == 1
    # Its last add still takes the block's input: the mixed convolutions have no shortcut of their own.
    stem = names["activations__2"]
    assert sum(stem in n.all_input_nodes for n in names.values() if "add" in n.name) == 2


class _ByValue(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y if y.sum().item() < 1e9 else y.abs()


def test_a_branch_with_a_part_that_cannot_be_followed_is_a_block_all_the_same(convert: Convert) -> None:
    built = convert(_net(_Block(_ByValue(), nn.Identity())))
    assert isinstance(built.student.get_submodule("3.between.conv"), BinaryConv2d)
    assert len(built.structure.shortcuts) == 1
    assert [r.teacher for r in built.structure.representations] == ["relu_1"]


@pytest.mark.parametrize(
    ("name", "shortcuts", "blocks"),
    [
        ("efficientnet_b0", 0, 9),
        ("mobilenet_v3_large", 0, 10),
        # A 1x1 that keeps its channels gets its input; grouped 3x3 stay float.
        ("regnet_y_400mf", 12, 16),
        ("timm:seresnet18", 8, 8),
        # 3x3 of 16 blocks, less the first of a stage where the stride changes the shape; 1x1 never fit.
        ("resnet50", 14, 16),
        ("timm:mixnet_s", 0, 11),
        ("timm:test_convnext", 0, 9),
    ],
)
def test_known_networks_have_their_blocks(name: str, shortcuts: int, blocks: int, convert: Convert) -> None:
    options = {"binarize": ("*mlp*",)} if "convnext" in name else {}
    structure = convert(find_model(name).build(10), size=64, **options).structure
    assert (len(structure.shortcuts), len(structure.representations)) == (shortcuts, blocks)


def test_joined_branches_are_what_is_compared_where_nothing_is_added(convert: Convert) -> None:
    built = convert(find_model("densenet121").build(10), size=32)
    # One join per dense block holds all of its layers.
    assert [r.teacher for r in built.structure.representations] == ["cat_6", "cat_19", "cat_44", "cat_61"]


def test_relus_behind_a_shuffle_are_replaced(convert: Convert) -> None:
    built = convert(find_model("shufflenet_v2_x0_5").build(10), size=64)
    student = built.student
    relus = [n for n in student.graph.nodes if isinstance(n.target, str) and n.op == "call_module"]
    left = [n for n in relus if type(student.get_submodule(n.target)) is nn.ReLU]
    # What is left feeds depthwise convolutions, or the answer.
    fed = {type(student.get_submodule(u.target)) for n in left for u in n.users if u.op == "call_module"}
    assert fed == {nn.Conv2d} and len(left) == 17 and len(built.structure.activations) == 20


@pytest.mark.parametrize(
    ("name", "left"),
    [
        # Before the stem's max pool and blur all ReLUs feed binary convolutions.
        ("timm:resnetblur18", 0),
        # Those of the eight attentions work on pooled values.
        ("timm:skresnet18", 8),
    ],
)
def test_relus_behind_blurs_and_selections_are_replaced(name: str, left: int, convert: Convert) -> None:
    student = convert(find_model(name).build(10), size=64).student
    called = [student.get_submodule(n.target) for n in student.graph.nodes if n.op == "call_module"]
    assert sum(type(m) is nn.ReLU for m in called) == left


@pytest.mark.parametrize("activation", [nn.SiLU, nn.Hardswish, nn.GELU, nn.Hardsigmoid])
def test_smooth_activations_stay(activation: type[nn.Module], convert: Convert) -> None:
    network = _net(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), activation(), nn.Conv2d(8, 8, 3))
    built = convert(network)
    images = torch.randn(8, 3, 16, 16)
    bits = calibrate(built.student, images, Threshold.MEDIAN)
    assert type(built.student.get_submodule("5")) is activation
    assert all(abs(b.share_of_ones - 0.5) < 0.1 for b in bits) and len(bits) == 2


def test_a_frozen_norm_behind_a_binary_convolution_measures_again(convert: Convert) -> None:
    network = _net(nn.Conv2d(8, 8, 3), FrozenBatchNorm2d(8), nn.ReLU())
    frozen = network[4]
    frozen.weight.uniform_(0.5, 2)
    frozen.running_mean.normal_()
    built = convert(network)
    norm = built.student.get_submodule("4")
    assert type(norm) is nn.BatchNorm2d and built.structure.norms == ()
    assert torch.equal(norm.weight, frozen.weight) and torch.equal(norm.running_mean, frozen.running_mean)
    assert type(built.teacher.get_submodule("4")) is FrozenBatchNorm2d
    calibrate(built.student, torch.randn(4, 3, 16, 16), Threshold.MEDIAN)
    assert not torch.equal(norm.running_mean, frozen.running_mean)


@pytest.mark.parametrize(
    "norm", [lambda: nn.GroupNorm(2, 8), lambda: LayerNorm2d(8), lambda: nn.InstanceNorm2d(8)]
)
def test_other_norms_are_enough(norm: Callable[[], nn.Module], convert: Convert) -> None:
    assert convert(_net(nn.Conv2d(8, 8, 3), norm(), nn.ReLU())).structure.norms == ()


def test_zeros_around_the_input_become_zeros_of_the_layer(convert: Convert) -> None:
    built = convert(_net(nn.ZeroPad2d((0, 1, 2, 3)), nn.Conv2d(8, 8, 3, padding=1)))
    layer = built.student.get_submodule("4")
    assert layer.padding == (3, 1, 4, 2)
    assert all(n.target != "3" for n in built.student.graph.nodes)
    # Padding with something else, or with copies, is the network's own.
    for pad in (nn.ConstantPad2d(1, 0.5), nn.ReflectionPad2d(1)):
        student = convert(_net(pad, nn.Conv2d(8, 8, 3))).student
        assert student.get_submodule("4").padding == (0, 0, 0, 0)
        assert any(n.target == "3" for n in student.graph.nodes)


class _Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(self.act(self.up(x.permute(0, 2, 3, 1))))
        return x + y.permute(0, 3, 1, 2)


@pytest.mark.parametrize("activation", list(Activation))
def test_linear_layers_with_channels_last(activation: Activation, convert: Convert) -> None:
    # As many channels as pixels: equal sizes must not pass for equal layouts.
    built = convert(_net(_Mlp()), size=8, binarize=("3.*",), activation=activation)
    student = built.student
    assert [type(m) for m in student.modules()].count(BinaryLinear) == 2
    assert [type(m) for m in student.modules()].count(LastAxisBatchNorm) == 2
    assert built.structure.shortcuts == () and len(built.structure.representations) == 1
    images = torch.randn(4, 3, 8, 8)
    bits = calibrate(student, images, Threshold.MEDIAN)
    assert [b.name for b in bits] == ["3.up", "3.down"]
    student.train()(images).sum().backward()
    assert all(p.grad is not None for p in student.parameters() if p.requires_grad)


def test_a_layer_that_is_used_twice_has_one_threshold_for_both(convert: Convert) -> None:
    shared = nn.Conv2d(8, 8, 3, padding=1)
    network = _net(shared, nn.BatchNorm2d(8), nn.ReLU(), shared)
    built = convert(network, binarize=("3",))
    layer = built.student.get_submodule("3")
    assert isinstance(layer, BinaryConv2d) and len(built.structure.norms) == 1
    seen = []
    layer.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    calibrate(built.student, torch.randn(16, 3, 16, 16), Threshold.MEDIAN)
    assert len(seen) % 2 == 0
    both = torch.cat([x.transpose(0, 1).flatten(1) for x in seen[-2:]], 1)
    share = (both >= layer.threshold.view(-1, 1)).float().mean(1)
    assert (share - 0.5).abs().max() < 0.15


def test_a_network_that_standardizes_its_weights(convert: Convert) -> None:
    built = convert(timm.create_model("test_nfnet", pretrained=False), size=64)
    layers = [m for m in built.student.modules() if isinstance(m, BinaryConv2d)]
    assert len(layers) == 14 and len(built.structure.norms) == 14
    reasons = {p.reason for p in built.plan if p.decision == "binarize"}
    assert reasons == {"inside the network; it starts from its standardized weights"}
