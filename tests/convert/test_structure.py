"""The rewritten graph computes what a network written by hand with these shortcuts and activations
computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from dirnet_convert.binarize.activations import ShiftedPReLU
from dirnet_convert.binarize.layers import BinaryConv2d
from dirnet_convert.convert.binarize_network import Binarized
from dirnet_convert.convert.calibrate import calibrate
from dirnet_convert.models.catalog import find_model
from dirnet_convert.recipe import Activation, Shortcut, Threshold

Convert = Callable[..., Binarized]
Randomize = Callable[[nn.Module], nn.Module]
ORIGINAL = {"shortcut": Shortcut.ORIGINAL, "activation": Activation.KEEP}


class _Residual(nn.Module):
    """A stem, one residual block, and a head."""

    def __init__(self, block: nn.Module, channels: int, out: int) -> None:
        super().__init__()
        self.stem, self.norm, self.relu = (
            nn.Conv2d(3, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(True),
        )
        self.block, self.head = block, nn.Linear(out, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.relu(self.norm(self.stem(x)))).mean((2, 3)))


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _images(generator: torch.Generator, count: int = 4, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=generator)


def _prepared(built: Binarized, images: Tensor) -> nn.Module:
    calibrate(built.student, images, Threshold.MEDIAN)
    return built.student.eval()


def _stem(s: nn.Module, x: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    return act(s.get_submodule("norm")(s.get_submodule("stem")(x)))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_basic_block_becomes_two_bi_real_halves(
    convert: Convert, randomized: Randomize, generator: torch.Generator, stride: int
) -> None:
    out = 8 * stride
    down = _downsample(8, out, 2) if stride == 2 else None
    built = convert(randomized(_Residual(BasicBlock(8, out, stride, down), 8, out)))
    images = _images(generator)
    s = _prepared(built, images)
    b = s.get_submodule("block")
    with torch.no_grad():
        x = _stem(s, images, F.hardtanh)
        shortcut = b.get_submodule("downsample.1")(b.get_submodule("downsample.0")(x)) if stride == 2 else x
        half = F.hardtanh(b.bn1(b.conv1(x)) + shortcut)
        whole = F.hardtanh(b.bn2(b.conv2(half)) + half)
        assert torch.equal(s(images), s.get_submodule("head")(whole.mean((2, 3))))
    assert isinstance(b.conv1, BinaryConv2d) and isinstance(b.conv2, BinaryConv2d)
    assert len(built.structure.shortcuts) == 1
    assert len(built.structure.activations) == 3


def test_a_bottleneck_adds_where_shapes_allow(
    convert: Convert, randomized: Randomize, generator: torch.Generator
) -> None:
    built = convert(randomized(_Residual(Bottleneck(8, 8, 1, _downsample(8, 32, 1)), 8, 32)))
    images = _images(generator)
    s = _prepared(built, images)
    b = s.get_submodule("block")
    with torch.no_grad():
        x = _stem(s, images, F.hardtanh)
        first = F.hardtanh(b.bn1(b.conv1(x)) + x)
        second = F.hardtanh(b.bn2(b.conv2(first)) + first)
        shortcut = b.get_submodule("downsample.1")(b.get_submodule("downsample.0")(x))
        whole = F.hardtanh(b.bn3(b.conv3(second)) + shortcut)
        assert torch.equal(s(images), s.get_submodule("head")(whole.mean((2, 3))))


def test_a_kept_convolution_keeps_the_blocks_shortcut(
    convert: Convert, randomized: Randomize, generator: torch.Generator
) -> None:
    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for k in (1, 2, 3):
                setattr(self, f"conv{k}", nn.Conv2d(8, 8, 3, padding=1))
                setattr(self, f"bn{k}", nn.BatchNorm2d(8))

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
            return F.relu(x + self.bn3(self.conv3(y)))

    built = convert(randomized(_Residual(Three(), 8, 8)), keep=("block.conv2",))
    images = _images(generator)
    s = _prepared(built, images)
    b = s.get_submodule("block")
    with torch.no_grad():
        x = _stem(s, images, F.hardtanh)
        first = F.hardtanh(b.bn1(b.conv1(x)) + x)
        second = F.hardtanh(b.bn2(b.conv2(first)))
        whole = F.hardtanh(x + b.bn3(b.conv3(second)))
        assert torch.equal(s(images), s.get_submodule("head")(whole.mean((2, 3))))


def test_option_a_shortcuts(convert: Convert, randomized: Randomize, generator: torch.Generator) -> None:
    built = convert(randomized(find_model("resnet20").build(10)), size=32)
    images = _images(generator, size=32)
    s = _prepared(built, images)
    with torch.no_grad():
        x = F.hardtanh(s.bn1(s.conv1(images)))
        for stage in (1, 2, 3):
            for block in (0, 1, 2):
                b = s.get_submodule(f"layer{stage}.{block}")
                shortcut = x
                if stage > 1 and block == 0:
                    half = x.shape[1] // 2
                    shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
                x = F.hardtanh(b.bn1(b.conv1(x)) + shortcut)
                x = F.hardtanh(b.bn2(b.conv2(x)) + x)
        assert torch.equal(s(images), s.linear(x.mean((2, 3))[:, :, None, None].flatten(1)))
    assert len(built.structure.shortcuts) == 9 and len(built.structure.representations) == 9


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "mobilenet_v2", "vgg_small", "timm:resnet10t"])
def test_without_changes_only_the_convolutions_differ(
    convert: Convert, randomized: Randomize, generator: torch.Generator, name: str
) -> None:
    network = randomized(find_model(name).build(5))
    built = convert(network, size=32, **ORIGINAL)
    assert built.structure.activations == built.structure.shortcuts == built.structure.norms == ()
    for name, layer in built.student.named_modules():
        if isinstance(layer, BinaryConv2d):
            original = network.get_submodule(name)
            assert torch.equal(layer.weight, original.weight)
            built.student.set_submodule(name, original)
    images = _images(generator, size=32)
    with torch.no_grad():
        assert torch.equal(built.student.eval()(images), network(images))


@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "mobilenet_v2", "squeezenet1_1", "googlenet", "shufflenet_v2_x0_5"),
        *("vgg_small", "timm:efficientnet_b0", "timm:regnetx_002", "timm:resnet10t"),
    ],
)
def test_teachers_answer_as_before_and_representations_pair_up(
    convert: Convert, generator: torch.Generator, name: str
) -> None:
    network = find_model(name).build(5).eval()
    images = _images(generator, count=2, size=32)
    modes = {m: m.training for m in network.modules()}
    with torch.no_grad():
        before = network(images)
    built = convert(network, size=images.shape[-1])
    with torch.no_grad():
        logits, teacher = built.teacher_forward.eval()(images)
        answer, student = built.student_forward.eval()(images)
        assert torch.equal(built.teacher.eval()(images), before) and torch.equal(logits, before)
        assert torch.equal(built.student.eval()(images), answer)
        assert torch.equal(network(images), before)
    assert [t.shape for t in teacher] == [s.shape for s in student]
    assert len(teacher) == len(built.structure.representations) > 0
    assert {m: m.training for m in network.modules()} == modes


def test_both_forms_of_a_network_share_their_parameters(convert: Convert) -> None:
    built = convert(find_model("resnet20").build(10), size=32)
    for whole, with_values in (
        (built.student, built.student_forward),
        (built.teacher, built.teacher_forward),
    ):
        shared = dict(with_values.named_parameters())
        assert all(shared[name] is parameter for name, parameter in whole.named_parameters())
    teacher = {id(p) for p in built.teacher.parameters()}
    assert not any(id(p) in teacher for p in built.student.parameters())


@pytest.mark.parametrize(
    ("activation", "kind"),
    [(Activation.HARDTANH, nn.Hardtanh), (Activation.PRELU, nn.PReLU), (Activation.RPRELU, ShiftedPReLU)],
)
def test_activations_are_replaced_by_kind(
    convert: Convert, activation: Activation, kind: type[nn.Module]
) -> None:
    built = convert(find_model("resnet20").build(10), size=32, activation=activation)
    assert sum(type(m) is kind for m in built.student.modules()) == 19
    assert len(built.structure.activations) == 19
    built.student.train()(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in built.student.parameters() if p.requires_grad)


class _EveryRelu(nn.Module):
    """The spellings of ReLU, with pools and a concatenation between it and the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if k == 0 else 4, 4, 3, padding=1) for k in range(6))
        self.joined, self.relu6, self.pool = nn.Conv2d(8, 4, 1), nn.ReLU6(inplace=True), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.convs[0](x)))
        x = F.max_pool2d(torch.relu(self.convs[1](x)), 2)
        x = self.relu6(self.convs[2](x))
        x = self.convs[3](x).relu_()
        a, b = torch.relu_(self.convs[4](x)), F.relu(self.convs[5](x), inplace=True)
        return F.relu(self.joined(torch.cat([a, b], 1))).mean((2, 3))


def test_every_spelling_of_relu_is_found(convert: Convert) -> None:
    built = convert(_EveryRelu(), binarize=("joined",))
    assert len(built.structure.activations) == 6
    assert "relu" in [n.name[:4] for n in built.student.graph.nodes], (
        "the last ReLU feeds no binary convolution"
    )


class _Overwriting(nn.Module):
    """Overwrites values that are read again, as sloppy networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.conv1, self.conv2 = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.stem(x))
        identity = x
        self.relu(x)
        y = self.bn1(self.conv1(x))
        y.relu_()
        y = self.bn2(self.conv2(y))
        identity.add_(y)
        torch.relu_(identity)
        return identity.mul_(2).mean((2, 3))


def test_overwritten_values_are_what_they_were(
    convert: Convert, randomized: Randomize, generator: torch.Generator
) -> None:
    network = randomized(_Overwriting())
    images = _images(generator)
    with torch.no_grad():
        before = network(images)
    built = convert(network, binarize=("conv2",))
    with torch.no_grad():
        assert torch.equal(built.teacher.eval()(images), before)
        assert torch.equal(network(images), before)
        s = _prepared(built, images)
        x = F.hardtanh(s.bn(s.stem(images)))
        y = F.hardtanh(s.bn1(s.conv1(x)) + x)
        y = F.hardtanh(s.bn2(s.conv2(y)) + y)
        # The block's add is spelled identity.add_(y); its operands keep their order.
        assert torch.allclose(s(images), y.mul(2).mean((2, 3)), atol=1e-6)
    assert network.relu.inplace
    built.student.train()(images).sum().backward()


class _OverwritesParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        first, _ = x.chunk(2, 1)
        first.mul_(5.0)
        return self.head(self.conv(x).mean((2, 3)))


def test_values_overwritten_through_a_part_of_them_stay_the_networks(
    convert: Convert, generator: torch.Generator
) -> None:
    network, images = _OverwritesParts().eval(), _images(generator)
    built = convert(network)
    assert "overwrites" in built.trace_failure
    with torch.no_grad():
        assert torch.equal(built.teacher.eval()(images), network(images))


class _TrainingAware(nn.Module):
    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.stem, self.conv, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), last
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(F.relu(self.stem(x))))
        return self.head(F.dropout(self.last(x), 0.5, training=self.training).mean((2, 3)))


def test_dropout_and_fused_norms_know_when_the_network_is_trained(
    convert: Convert, generator: torch.Generator
) -> None:
    built = convert(_TrainingAware(BatchNormAct2d(8)))
    student, images = built.student, _images(generator)
    norm = student.get_submodule("last")
    with torch.no_grad():
        assert torch.equal(student.eval()(images), student(images))
        assert not torch.equal(student.train()(images), student(images))
        student.eval()
    assert norm.running_mean.any()
    assert norm.num_batches_tracked == 2
    assert {"last.weight", "last.running_mean"} <= student.state_dict().keys()


def test_stochastic_depth_stays_random_in_training(convert: Convert, generator: torch.Generator) -> None:
    built = convert(find_model("efficientnet_b0").build(5), size=32)
    images = _images(generator, size=32)
    with torch.no_grad():
        student = built.student.train()
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d | nn.Dropout):
                module.eval()
        assert not torch.equal(student(images), student(images))
        assert torch.equal(student.eval()(images), student(images))


def test_a_sum_of_sizes_is_no_residual_block(convert: Convert, generator: torch.Generator) -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = (nn.Conv2d(c, 4, 3, padding=1) for c in (3, 4, 4))
            self.last = nn.Conv2d(8, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            a = F.relu(self.a(self.stem(x)))
            b = F.relu(self.b(a))
            joined = torch.cat([a, b], 1).flatten(2)
            size = a.size(1) + b.size(1)
            return self.last(joined.view(joined.size(0), size, *a.shape[2:])).mean((2, 3))

    built = convert(Sized(), binarize=("a", "b"))
    logits, representations = built.student_forward(_images(generator))
    assert logits.shape == (4, 4)
    assert all(isinstance(value, Tensor) for value in representations)
