"""Which layers are binarized, and the reason given for each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dirnet_convert.convert.binarize_network import plan_network
from dirnet_convert.convert.policy import LayerPlan
from dirnet_convert.errors import UsageError
from dirnet_convert.models.catalog import find_model
from dirnet_convert.recipe import ConvertOptions


def plan(network: nn.Module, size: int = 64, **options: tuple[str, ...]) -> dict[str, LayerPlan]:
    layers, _ = plan_network(network, torch.zeros(1, 3, size, size), ConvertOptions(**options))
    return {layer.name: layer for layer in layers}


def kept(layers: dict[str, LayerPlan]) -> dict[str, int]:
    words = [p.reason.split(":")[0] for p in layers.values() if p.decision == "keep"]
    return {word: words.count(word) for word in words}


@pytest.mark.parametrize(
    ("name", "binarized", "reasons"),
    [
        ("resnet18", 16, {"first layer": 1, "1x1 downsample of a shortcut": 3, "linear layer": 1}),
        ("resnet50", 48, {"first layer": 1, "1x1 downsample of a shortcut": 4, "linear layer": 1}),
        ("mobilenet_v2", 34, {"first layer": 1, "depthwise": 17, "linear layer": 1}),
        ("squeezenet1_1", 24, {"first layer": 1, "last layer": 1}),
        ("densenet121", 119, {"first layer": 1, "linear layer": 1}),
        ("shufflenet_v2_x0_5", 36, {"first layer": 1, "depthwise": 19, "linear layer": 1}),
        ("googlenet", 56, {"first layer": 1, "linear layer": 1}),
        ("resnet20", 18, {"first layer": 1, "linear layer": 1}),
        ("timm:resnet18d", 18, {"first layer": 1, "1x1 downsample of a shortcut": 3, "linear layer": 1}),
        (
            "timm:seresnet18",
            16,
            {
                "first layer": 1,
                "works on pooled 1x1 values (a gate)": 16,
                "1x1 downsample of a shortcut": 3,
                "linear layer": 1,
            },
        ),
    ],
)
def test_known_networks(name: str, binarized: int, reasons: dict[str, int]) -> None:
    layers = plan(find_model(name).build(10))
    assert sum(p.decision == "binarize" for p in layers.values()) == binarized
    assert kept(layers) == reasons
    assert all(p.reason and p.weights for p in layers.values())


def test_a_small_image_makes_no_gate_of_a_convolution() -> None:
    # ResNet-18's last stage works on single positions when the image has 32 pixels.
    layers = plan(find_model("resnet18").build(10), size=32)
    assert sum(p.decision == "binarize" for p in layers.values()) == 16


def test_operations_are_counted() -> None:
    # torchvision publishes 1.814 GFLOPS (multiply-adds) for resnet18 and 0.300 for mobilenet_v2 at 224
    # pixels.
    for name, giga in (("resnet18", 1.814), ("mobilenet_v2", 0.301)):
        layers = plan(find_model(name).build(1000), size=224)
        assert sum(p.macs for p in layers.values()) / 1e9 == pytest.approx(giga, abs=0.002)


class _Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        class Special(nn.Conv2d):
            pass

        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.circular = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
        self.special = Special(8, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.plain = nn.Conv2d(8, 8, 3, padding=1)
        self.transposed = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.flat = nn.Conv1d(4, 4, 3)
        self.unused = nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(F.relu(self.twice(F.relu(self.stem(input=x)))))
        x = self.plain(self.depthwise(self.grouped(self.special(self.circular(x)))))
        return self.head(self.flat(self.transposed(x).flatten(2)).transpose(1, 2))


def test_odd_layers_are_kept_for_their_own_reason() -> None:
    layers = plan(_Odd(), size=8)
    expected = {
        "stem": "first layer",
        "twice": "used 2 times",
        "special": "Special is a class of its own",
        "grouped": "grouped (2 groups)",
        "depthwise": "depthwise",
        "transposed": "ConvTranspose2d: there are binary operators for",
        "flat": "Conv1d: there are binary operators for",
        "unused": "not used",
        "head": "linear layer",
    }
    for name, words in expected.items():
        assert layers[name].decision == "keep" and layers[name].reason.startswith(words), name
    assert layers["plain"].decision == layers["circular"].decision == "binarize"
    # 8*3*3*3 weights at 64 positions; 8*8*9 at 64, twice; 8*4*2*2 at 64 inputs; 4*4*3 at 254; 4*5 at 254.
    macs = {name: layers[name].macs for name in ("stem", "twice", "transposed", "flat", "head", "unused")}
    assert macs == {
        "stem": 216 * 64,
        "twice": 576 * 64 * 2,
        "transposed": 128 * 64,
        "flat": 48 * 254,
        "head": 20 * 254,
        "unused": 0,
    }


def test_what_can_be_binarized_is_where_asked_for() -> None:
    layers = plan(_Odd(), size=8, binarize=("*",))
    kept = {n for n, p in layers.items() if p.decision == "keep"}
    assert kept == {"transposed", "flat", "unused"}
    asked = plan(_Odd(), size=8)
    for layer in asked.values():
        # The remedy is what a person types, or the reason says that nothing helps.
        if layer.decision == "keep" and layer.name not in kept:
            assert layer.remedy == f"--binarize '{layer.name}'"


def test_globs_decide_and_keep_wins() -> None:
    network = find_model("resnet20").build(10)
    layers = plan(network, 32, keep=("layer3.*", "layer1.0.conv1"), binarize=("conv1", "layer3.0.conv1"))
    assert layers["conv1"].reason == "asked for with --binarize"
    assert layers["layer3.0.conv1"].reason == "asked for with --keep"
    assert layers["layer1.0.conv1"].decision == "keep"
    assert layers["layer1.0.conv2"].decision == "binarize"
    with pytest.raises(UsageError, match=r"No layer matches 'layer9\.\*'"):
        plan(network, 32, keep=("layer9.*",))
    with pytest.raises(UsageError, match=r"did you mean 'layer1\.0\.conv1'"):
        plan(network, 32, binarize=("layer1.0.conf1",))


class _AveragedShortcut(nn.Module):
    """A shortcut that pads, pools and only then convolves."""

    def __init__(self, wrap: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.wrap = nn.Conv2d(3, 8, 3, padding=1), wrap
        self.down, self.main = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(self.down(self.wrap(x)) + self.main(x))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.avg_pool2d(F.pad(x, (0, 0, 0, 0)), 2),
        lambda x: x[:, :, ::2, ::2],
    ],
)
def test_a_pooled_shortcut_is_known(wrap: Callable[[Tensor], Tensor]) -> None:
    layers = plan(_AveragedShortcut(wrap), size=8)
    assert layers["down"].reason.startswith("1x1 downsample")
    assert layers["main"].decision == "binarize"


class _Branches(nn.Module):
    """Branches of ``kernels`` side by side, added up as MobileOne adds them, between two 3x3 convolutions."""

    def __init__(self, *kernels: int) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 3)
        self.branches = nn.ModuleList(nn.Conv2d(8, 8, k, padding=k // 2) for k in kernels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(F.relu(sum(branch(x) for branch in self.branches)))


@pytest.mark.parametrize(
    ("kernels", "expected"), [((1, 1, 1), ["binarize"] * 3), ((3, 1, 1), ["binarize", "keep", "keep"])]
)
def test_pointwise_branches_of_one_layer_are_no_shortcuts(
    kernels: tuple[int, ...], expected: list[str]
) -> None:
    layers = plan(_Branches(*kernels), size=8)
    assert [layers[f"branches.{i}"].decision for i in range(3)] == expected


def test_two_pointwise_layers_in_a_row_have_a_shortcut() -> None:
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 3)
            self.one, self.two, self.down = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.last(self.two(F.relu(self.one(x))) + self.down(x))

    layers = plan(Mixer(), size=8)
    assert layers["down"].reason.startswith("1x1 downsample")
    assert layers["one"].decision == layers["two"].decision == "binarize"


def test_the_tree_alone_decides_where_there_is_no_graph() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)
            self.shared = nn.Conv2d(4, 4, 1)
            self.alias = nn.Sequential(self.shared)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inner(self.stem(x))
            x = self.alias(self.shared(x)) if x.sum() > 0 else self.shared(x)
            return self.head(x.mean((2, 3)))

    network = Branching()
    layers, graph = plan_network(network, torch.zeros(1, 3, 8, 8), ConvertOptions())
    assert not isinstance(graph, fx.GraphModule) and "control flow" in graph.cause
    decisions = {p.name: p.reason.split(":")[0] for p in layers}
    assert decisions == {
        "stem": "first layer",
        "inner": "inside the network",
        "shared": "used 2 times",
        "head": "linear layer",
    }
