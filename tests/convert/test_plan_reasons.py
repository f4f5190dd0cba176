"""No layer is left in float without a line that says why and what would change it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from dirnet_convert.binarize.layers import BinaryConv2d, BinaryLinear
from dirnet_convert.convert.binarize_network import Binarized, plan_network
from dirnet_convert.convert.calibrate import calibrate
from dirnet_convert.convert.policy import Decision, LayerPlan
from dirnet_convert.errors import UsageError
from dirnet_convert.recipe import ConvertOptions, Threshold

Convert = Callable[..., Binarized]


class _Doubled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.inner(tokens, tokens, tokens)[0].transpose(1, 2).view(x.shape)


class _ReadElsewhere(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.conv.weight)


class _ReadAndCalled(_ReadElsewhere):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + super().forward(x)


class _AskedForItsType(_ReadElsewhere):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.to(self.conv.weight.dtype))


class _ReadOnValues(_ReadElsewhere):
    """Cannot be followed, and calls one of its layers only."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.down = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(super().forward(x) if x.abs().sum() > 0 else x)
        return self.called(x) + functional.interpolate(y, x.shape[2:])


class _ByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(input=x)


class _Alias(nn.Module):
    """Holds a layer whose first name in the tree is another one, and cannot be followed."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.abs().sum() > 0 else self.layer(x) + 1


class _Inner(nn.Module):
    def __init__(self, parts: nn.Module) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        return self.parts.network(x)


class _WithBranch(nn.Module):
    """Cannot be followed itself: its way depends on a value."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.first, self.inner, self.end = nn.Conv2d(3, 8, 1), inner, nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.end(self.inner(self.first(x)))
        return y if y.sum() > 1e9 else 2 * y


class _Experts(nn.Module):
    """A convolution whose weight is mixed for each image, and no nn.Conv2d."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 8 * 8))

    def forward(self, x: Tensor) -> Tensor:
        mixed = (x.mean((2, 3))[:, :2] @ self.weight).view(-1, 8, 8)
        return torch.einsum("noi,nihw->nohw", mixed, x)


class _Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(torch.zeros(1, dtype=torch.long))[..., None, None]


def _net(layer: nn.Module) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), layer, nn.ReLU(), nn.Conv2d(8, 8, 3)),
        *(nn.ReLU(), nn.Conv2d(8, 4, 1)),
    ).eval()


def _plan(network: nn.Module, **options: tuple[str, ...]) -> dict[str, LayerPlan]:
    layers, _ = plan_network(network, torch.zeros(1, 3, 16, 16), ConvertOptions(**options))
    return {layer.name: layer for layer in layers}


@pytest.mark.parametrize(
    ("layer", "name", "reason"),
    [
        (lambda: weight_norm(nn.Conv2d(8, 8, 3)), "2", "its weights are computed from others"),
        (lambda: spectral_norm(nn.Conv2d(8, 8, 3)), "2", "its weights are computed from others"),
        (
            lambda: prune.l1_unstructured(nn.Conv2d(8, 8, 3), "weight", 0.5),
            "2",
            "its weights are computed from others",
        ),
        (lambda: nn.Sequential(nn.Conv2d(8, 8, 3, groups=8)), "2.0", "depthwise"),
    ],
)
def test_what_can_be_asked_for(
    layer: Callable[[], nn.Module], name: str, reason: str, convert: Convert
) -> None:
    torch.manual_seed(5)
    network = _net(layer())
    plan = _plan(network)[name]
    assert plan.decision is Decision.KEEP and plan.reason.startswith(reason)
    assert plan.remedy == f"--binarize '{name}'"
    weight = network.get_submodule(name).weight.detach().clone()
    built = convert(network, binarize=(name,))
    twin = built.student.get_submodule(name)
    assert isinstance(twin, BinaryConv2d) and torch.equal(twin.weight, weight)
    with torch.no_grad():
        assert torch.equal(built.teacher.eval()(torch.ones(1, 3, 16, 16)), network(torch.ones(1, 3, 16, 16)))


@pytest.mark.parametrize(
    ("layer", "name", "reason", "remedy"),
    [
        (
            lambda: _Doubled(8, 8, 3),
            "2",
            "_Doubled computes something else than nn.Conv2d",
            "a nn.Conv2d in its place, in the network's own code",
        ),
        (
            lambda: _ReadElsewhere(),
            "2.conv",
            "its weights are read without calling it",
            "a call of the layer in its place, in the network's own code",
        ),
        (
            lambda: _Attention(),
            "2.inner.out_proj",
            "part of MultiheadAttention '2.inner', which computes in one piece",
            "",
        ),
        (
            lambda: _Attention(),
            "2.inner",
            "MultiheadAttention is neither a convolution nor a linear layer: nothing binary computes what it "
            "does",
            "",
        ),
        (
            lambda: _Experts(),
            "2",
            "_Experts is neither a convolution nor a linear layer: nothing binary computes what it does",
            "",
        ),
        (
            lambda: _Table(),
            "2.table",
            "Embedding is neither a convolution nor a linear layer: nothing binary computes what it does",
            "",
        ),
        (
            lambda: nn.Sequential(nn.ConvTranspose2d(8, 8, 2)),
            "2.0",
            "ConvTranspose2d: there are binary operators for 2-D convolutions and linear layers only",
            "",
        ),
    ],
)
def test_what_cannot_be_binarized(
    layer: Callable[[], nn.Module], name: str, reason: str, remedy: str
) -> None:
    torch.manual_seed(6)
    plan = _plan(_net(layer()))[name]
    assert (plan.decision, plan.reason, plan.remedy) == (Decision.KEEP, reason, remedy)
    assert plan.weights > 0 and plan.shape
    with pytest.raises(UsageError, match="which cannot be binarized"):
        _plan(_net(layer()), binarize=(name,))


def test_layers_whose_weights_are_used_in_another_way_stay() -> None:
    torch.manual_seed(6)
    plan = _plan(_net(_ReadAndCalled()))["2.conv"]
    assert plan.decision is Decision.KEEP and plan.remedy == "--binarize '2.conv'"
    assert plan.reason == "its weights are also read without calling it, where they would stay real"
    assert _plan(_net(_AskedForItsType()))["2.conv"].decision is Decision.BINARIZE
    within = _net(_ReadOnValues())
    for plan, prefix in ((_plan(within), "2."), (_plan(_WithBranch(_ReadOnValues())), "inner.")):
        assert plan[f"{prefix}conv"].reason.startswith("it was not called for an image")
        assert plan[f"{prefix}down"].reason.startswith("1x1 downsample of a shortcut")
        assert plan[f"{prefix}called"].decision is Decision.BINARIZE


def test_a_layer_with_two_names_is_called_under_both() -> None:
    network = _net(_Alias(nn.Conv2d(8, 8, 3)))
    named = nn.Sequential()
    named.first_name = network[2].layer
    named.network = network
    plan = _plan(_Inner(named))["parts.first_name"]
    assert plan.decision is Decision.KEEP and plan.reason.startswith("called under another name")


def test_layers_called_by_name_are_binarized(convert: Convert) -> None:
    torch.manual_seed(6)
    for network, name in ((_net(_ByName()), "2.conv"), (_WithBranch(_ByName()), "inner.conv")):
        built = convert(network.eval())
        assert isinstance(built.student.get_submodule(name), BinaryConv2d)
        bits = calibrate(built.student, torch.randn(4, 3, 16, 16), Threshold.MEDIAN)
        assert name in [layer.name for layer in bits]
        built.student.train()(torch.randn(4, 3, 16, 16)).sum().backward()


def test_hooks_are_not_lost_unnoticed() -> None:
    network = _net(nn.Conv2d(8, 8, 3))
    network[2].register_forward_hook(lambda _m, _i, y: 2 * y)
    assert _plan(network)["2"].reason == "it has hooks, which a binary layer would lose"


def test_lazy_layers_have_become_plain_ones() -> None:
    plan = _plan(_net(nn.LazyConv2d(8, 3)))["2"]
    assert (plan.kind, plan.decision, plan.shape) == ("Conv2d", Decision.BINARIZE, "8 -> 8, 3x3")


def test_linear_layers_are_binarized_when_asked(convert: Convert) -> None:
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 32), nn.ReLU()),
        nn.Linear(32, 4),
    ).eval()
    layers = _plan(network)
    assert layers["3"].reason.startswith("linear layer") and layers["3"].remedy == "--binarize '3'"
    assert layers["5"].reason.startswith("linear layer")
    built = convert(network, binarize=("3",))
    assert isinstance(built.student.get_submodule("3"), BinaryLinear) and len(built.structure.norms) == 1
    assert isinstance(built.student.get_submodule("5"), nn.Linear)


@pytest.mark.parametrize(
    "name",
    [
        "test_vit",
        "test_convnext",
        "test_efficientnet_gn",
        "test_nfnet",
        "resnest14d",
        "levit_128s",
        "convit_tiny",
    ],
)
def test_every_layer_of_a_network_has_a_reason_and_a_remedy(name: str) -> None:
    network = timm.create_model(name, pretrained=False).eval()
    size = network.default_cfg["input_size"][1]
    layers, _ = plan_network(network, torch.zeros(1, 3, size, size), ConvertOptions())
    final = ("part of", "not used", "neither a convolution", "2-D convolutions and linear layers only")
    assert {n for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)} <= {
        p.name for p in layers
    }
    for plan in layers:
        assert plan.reason
        assert plan.remedy or any(words in plan.reason for words in final), plan
