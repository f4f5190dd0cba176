"""Networks become graphs: branches on shapes, containers of tensors, and modules that resist."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torchvision.models.detection.backbone_utils import mobilenet_backbone, resnet_fpn_backbone

from dirnet_convert.binarize.layers import BinaryConv2d
from dirnet_convert.convert.binarize_network import Binarized
from dirnet_convert.convert.calibrate import calibrate
from dirnet_convert.convert.trace import TraceFailure, opaque_modules, trace
from dirnet_convert.recipe import Threshold

Convert = Callable[..., Binarized]


class _ByShape(nn.Module):
    """Counts, compares and asserts sizes, as networks with windows do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor, scale: float | None = None) -> Tensor:
        batch, _, height, width = x.shape
        assert height > 2 and len(x.shape) == 4, "too small"
        if width % 4 != 0:
            x = functional.pad(x, (0, 4 - width % 4))
        x = self.conv(x)
        parts = [x[:, k : k + 2].mean((2, 3)) for k in range(0, x.size(1), 2)]
        y = torch.cat(parts, 1).view(batch, -1)
        return y if scale is None else y * scale


def test_sizes_decide_branches_and_loops(generator: torch.Generator) -> None:
    network = _ByShape()
    graph = trace(network, torch.zeros(1, 3, 6, 7))
    assert isinstance(graph, fx.GraphModule) and opaque_modules(graph) == {}
    images = torch.randn(3, 3, 6, 7, generator=generator)
    with torch.no_grad():
        assert torch.equal(graph(images), network(images))


class _ByBatch(_ByShape):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.conv(x)[k].mean((1, 2)) for k in range(x.shape[0])])


def test_a_graph_for_one_number_of_images_is_none() -> None:
    failure = trace(_ByBatch(), torch.zeros(1, 3, 6, 6))
    assert isinstance(failure, TraceFailure)


class _Inner(nn.Module):
    """Branches on the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.bn(x) if x.abs().max().item() < 1e6 else x


class _Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.last = nn.Conv2d(3, 4, 3), _Inner(), nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        x = functional.relu(self.inner(x))
        return self.head(self.last(x).mean((2, 3)))


def test_a_module_that_cannot_be_followed_stays_one_node(
    convert: Convert, generator: torch.Generator
) -> None:
    network = _Outer().eval()
    built = convert(network)
    assert built.trace_failure == ""
    assert list(opaque_modules(built.teacher)) == ["inner"]
    assert "values" in opaque_modules(built.teacher)["inner"]
    reasons = {p.name: p.reason for p in built.plan}
    assert reasons["inner.conv"] == (
        "inside the network; 'inner' around it stays as it is, since it cannot be traced"
    )
    assert isinstance(built.student.get_submodule("inner.conv"), BinaryConv2d)
    assert isinstance(built.student.last, BinaryConv2d)
    images = torch.randn(4, 3, 16, 16, generator=generator)
    bits = calibrate(built.student, images, Threshold.MEDIAN)
    assert {b.name for b in bits} == {"inner.conv", "last"}
    with torch.no_grad():
        assert torch.equal(built.teacher.eval()(images), network(images))


class _Pyramid(nn.Module):
    def __init__(self, pack: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.pack, self.bn = pack, nn.BatchNorm2d(4)
        self.stem, self.low, self.high = (nn.Conv2d(i, 4, 3, padding=1, stride=2) for i in (3, 4, 4))

    def forward(self, x: Tensor) -> object:
        low = self.bn(self.low(functional.relu(self.stem(x))))
        return self.pack(low, self.high(low))


@pytest.mark.parametrize(
    "pack",
    [
        lambda a, b: (a, b),
        lambda a, b: [a, b],
        lambda a, b: {"0": a, "pool": b},
        lambda a, b: OrderedDict([("0", a), ("pool", b)]),
        lambda a, b: {"levels": [a, b], "last": (b,)},
    ],
)
def test_what_a_network_returns_keeps_its_form(
    pack: Callable[[Tensor, Tensor], object], convert: Convert
) -> None:
    network = _Pyramid(pack)
    built = convert(network)
    assert built.trace_failure == ""
    images = torch.zeros(2, 3, 16, 16)
    leaves = torch.utils._pytree.tree_flatten
    with torch.no_grad():
        expected, student = network(images), built.student(images)
        teacher, _ = built.teacher_forward(images)
    assert all(torch.equal(a, b) for a, b in zip(leaves(expected)[0], leaves(teacher)[0], strict=True))
    assert [v.shape for v in leaves(student)[0]] == [v.shape for v in leaves(expected)[0]]
    assert isinstance(student, dict) == isinstance(expected, dict)
    if isinstance(expected, dict):
        assert list(student) == list(expected)


@pytest.mark.parametrize(
    "build",
    [
        lambda: resnet_fpn_backbone(backbone_name="resnet18", weights=None),
        lambda: mobilenet_backbone(backbone_name="mobilenet_v3_large", weights=None, fpn=True),
    ],
)
def test_backbones_of_detectors(build: Callable[[], nn.Module], convert: Convert) -> None:
    network = build().eval()
    built = convert(network, size=64)
    assert built.trace_failure == "" and opaque_modules(built.teacher) == {}
    images = torch.zeros(2, 3, 64, 64)
    with torch.no_grad():
        expected, student = network(images), built.student.eval()(images)
    assert list(student) == list(expected)
    assert [v.shape for v in student.values()] == [v.shape for v in expected.values()]


@pytest.mark.parametrize(
    "name", ["test_convnext", "test_nfnet", "test_mambaout", "levit_128s", "test_coatnet", "efficientvit_m0"]
)
def test_networks_of_timm_have_a_graph(name: str) -> None:
    network = timm.create_model(name, pretrained=False).eval()
    size = network.default_cfg["input_size"][1]
    graph = trace(network, torch.zeros(1, 3, size, size))
    assert isinstance(graph, fx.GraphModule) and opaque_modules(graph) == {}
