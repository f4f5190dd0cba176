"""Networks without a graph, of other inputs, or with nothing to binarize."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, StdConv2d
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torchvision.ops import FrozenBatchNorm2d

from dirnet_convert.binarize.layers import BinaryConv2d, BinaryLayer
from dirnet_convert.convert.binarize_network import Binarized, binarize_network
from dirnet_convert.convert.calibrate import calibrate
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.models.catalog import find_model
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions, Threshold

Convert = Callable[..., Binarized]


class _Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        if x.mean() > 1e6:
            return self.head(x.mean((2, 3)))
        return self.head(self.norm(self.inner(x)).mean((2, 3)))


def test_a_network_without_graph_is_binarized_as_a_tree(convert: Convert, generator: torch.Generator) -> None:
    network = _Branching()
    built = convert(network)
    assert "control flow" in built.trace_failure
    assert isinstance(built.student.inner, BinaryConv2d) and type(network.inner) is nn.Conv2d
    images = torch.randn(4, 3, 16, 16, generator=generator)
    assert [bits.name for bits in calibrate(built.student, images, Threshold.MEDIAN)] == ["inner"]
    logits, representations = built.student_forward(images)
    assert logits.shape == (4, 2) and representations == ()
    with torch.no_grad():
        assert torch.equal(built.teacher_forward.eval()(images)[0], network.eval()(images))


def test_a_shared_layer_of_a_tree_is_swapped_at_every_place(generator: torch.Generator) -> None:
    network = _Branching()
    network.alias = nn.Sequential(network.inner)
    built = binarize_network(
        network.eval(), torch.zeros(1, 3, 16, 16), ConvertOptions(), EstimatorOptions(), ("inner",)
    )
    assert isinstance(built.student.inner, BinaryConv2d)
    assert built.student.alias[0] is built.student.inner


class _SeveralInputs(nn.Module):
    def __init__(self, required: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        if required:
            self.forward = self.both

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.second(F.relu(self.first(x))).mean((2, 3))
        return y if mask is None else y * mask

    def both(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.second(self.first(x)).mean((2, 3)) * mask


def test_several_inputs(convert: Convert, generator: torch.Generator) -> None:
    built = convert(_SeveralInputs(required=False), binarize=("second",))
    assert built.trace_failure == ""
    assert built.student(torch.zeros(1, 3, 16, 16)).shape == (1, 4)
    with pytest.raises(DirnetError, match="does not take images of 3x16x16"):
        convert(_SeveralInputs(required=True), binarize=("second",))


class _OwnError(Exception):
    pass


class _Refusing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        raise _OwnError("not today")


def test_what_a_persons_own_code_raises_is_told(convert: Convert) -> None:
    with pytest.raises(DirnetError, match=r"\(_OwnError: not today\), nor of other common sizes"):
        convert(_Refusing())


class _Curious(nn.Module):
    """Asks its layer for what binary layers lack, where no graph shows it."""

    def __init__(self, attribute: str) -> None:
        super().__init__()
        self.attribute = attribute
        self.stem, self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        getattr(self.conv, self.attribute)
        if x.sum() == 0:
            return x.mean((2, 3))
        return self.last(self.conv(x)).mean((2, 3))


def test_code_that_reads_the_insides_of_a_layer(convert: Convert, generator: torch.Generator) -> None:
    with pytest.raises(DirnetError, match=r"does not run with binary layers \(.*'_reversed.*--keep"):
        convert(_Curious("_reversed_padding_repeated_twice"))
    assert convert(_Curious("kernel_size")).trace_failure
    kept = convert(_Curious("_reversed_padding_repeated_twice"), keep=("conv",), binarize=("last",))
    assert kept.student(torch.zeros(1, 3, 16, 16)).shape == (1, 4)


def test_a_module_that_is_called_as_a_word_of_python(convert: Convert) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3)
            self.way = nn.ModuleDict(
                {"local": nn.Conv2d(4, 4, 3), "global": nn.Sequential(nn.Conv2d(4, 4, 3))}
            )
            self.last = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.last((self.way["local"](x) + self.way["global"](x)).mean((2, 3)))

    built = convert(Named())
    assert "called 'global', a word of Python" in built.trace_failure
    assert built.student(torch.zeros(1, 3, 16, 16)).shape == (1, 4)


def test_a_compiled_module_inside(convert: Convert) -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), scripted, nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    built = convert(network, binarize=("2",))
    assert built.student(torch.zeros(1, 3, 16, 16)).shape[:2] == (1, 4)


def test_images_of_a_wrong_shape_are_named(convert: Convert, capfd: pytest.CaptureFixture[str]) -> None:
    for network, size, channels, sentence in (
        (find_model("resnet20").build(10), 32, 1, "takes images of 3 channels, and these have 1;"),
        (find_model("vgg_small").build(10), 8, 3, r"images of 3x8x8 \(.*--image-size"),
        # Neither is what is wrong alone.
        (find_model("vgg_small").build(10), 8, 1, r"images of 1x8x8 \(.*--image-size"),
    ):
        with pytest.raises(DirnetError, match=sentence) as caught:
            convert(network, size=size, channels=channels)
        assert "\n" not in str(caught.value) and "tlparse" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_nothing_to_binarize_is_said_with_the_reasons(convert: Convert) -> None:
    with pytest.raises(UsageError, match=r"first layer.*linear layer.*--binarize"):
        convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 2)))
    with pytest.raises(UsageError, match="it has no convolution"):
        convert(nn.Flatten())


@pytest.mark.parametrize("names", [("conv9",), ("bn1",)])
def test_a_plan_of_another_network_is_refused(names: tuple[str, ...]) -> None:
    network = find_model("resnet18").build(5).eval()
    with pytest.raises(DirnetError, match=names[0]):
        binarize_network(network, torch.zeros(1, 3, 32, 32), ConvertOptions(), EstimatorOptions(), names)


def test_the_original_is_untouched(convert: Convert) -> None:
    network = find_model("resnet20").build(10)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    built = convert(network, size=32)
    calibrate(built.student, torch.randn(4, 3, 32, 32), Threshold.MEDIAN)
    assert not any(isinstance(m, BinaryConv2d) for m in network.modules())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_tied_weights_part_only_when_asked(convert: Convert) -> None:
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), *(nn.Conv2d(4, 4, 3) for _ in range(3)), nn.Conv2d(4, 2, 1))
    )
    network[3].weight = network[1].weight
    reasons = {p.name: p.reason for p in convert(network).plan}
    assert reasons["1"].startswith("shares its weights with '3'")
    assert reasons["3"].startswith("shares its weights with '1'")
    built = convert(network, binarize=("1", "3"))
    first, second = built.student.get_submodule("1"), built.student.get_submodule("3")
    assert torch.equal(first.weight, second.weight) and first.weight is not second.weight


def test_a_resnet18_has_the_parameters_that_the_method_gives_it(convert: Convert) -> None:
    network = find_model("resnet18").build(1000)
    built = convert(network, size=64)
    binary = [m for m in built.student.modules() if isinstance(m, BinaryConv2d)]
    # The sixteen 3x3 convolutions: 2*2*64*64*9 + sum over 64, 128, 256 of (c*2c + 3*4c*c)*9.
    weights = 4 * 64 * 64 * 9 + sum((2 * c * c + 3 * 4 * c * c) * 9 for c in (64, 128, 256))
    assert len(binary) == 16 and sum(m.weight.numel() for m in binary) == weights == 10_985_472
    # What is new is one threshold per input channel.
    thresholds = 4 * 64 + sum(c + 3 * 2 * c for c in (64, 128, 256))
    assert sum(m.threshold.numel() for m in binary) == thresholds
    assert sum(p.numel() for p in built.student.parameters()) == 11_689_512 + thresholds
    assert sum(p.numel() for p in built.teacher.parameters()) == 11_689_512


def _varied() -> nn.Module:
    """A network with a layer of each kind that becomes binary."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.LazyConv2d(8, 3), nn.ReLU()),
        *(weight_norm(nn.Conv2d(8, 8, 3)), nn.ReLU(), StdConv2d(8, 8, 3), nn.ReLU()),
        *(Conv2dSame(8, 8, 3, stride=2), FrozenBatchNorm2d(8), nn.ReLU(), nn.ZeroPad2d((0, 1, 0, 1))),
        *(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 4)),
    ).eval()


def test_a_network_of_every_kind_is_built_again_from_its_names(generator: torch.Generator) -> None:
    images = torch.randn(4, 3, 16, 16, generator=generator)
    options = ConvertOptions(binarize=("4", "15"))
    first = binarize_network(_varied(), images[:1], options, EstimatorOptions())
    names = tuple(n for n, m in first.student.named_modules() if isinstance(m, BinaryLayer))
    assert names == ("2", "4", "6", "8", "12", "15")
    calibrate(first.student, images, Threshold.MEDIAN)
    second = binarize_network(_varied(), torch.zeros(1, 3, 16, 16), options, EstimatorOptions(), names)
    for ours, theirs in ((first.student, second.student), (first.teacher, second.teacher)):
        theirs.load_state_dict(ours.state_dict())
        with torch.no_grad():
            assert torch.equal(ours.eval()(images), theirs.eval()(images))
