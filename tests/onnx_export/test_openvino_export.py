"""OpenVINO computes what PyTorch computes, on bits where it can; a file that would not is not written."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from export_networks import binary_conv, build, head, images, stem
from torch import Tensor, nn

from dirnet_convert.binarize.layers import BinaryConv2d
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.onnx_export.openvino import export
from dirnet_convert.onnx_export.openvino.export import export_openvino_checked, require_openvino_task
from dirnet_convert.onnx_export.openvino.lower import Arithmetic, why_not_bits
from dirnet_convert.onnx_export.openvino.verify import verify_openvino
from dirnet_convert.onnx_export.verify_report import ExportMismatch
from dirnet_convert.recipe import Recipe, Task
from dirnet_convert.run import RunConfig
from dirnet_convert.runtime.openvino import compile_for_cpu, most_side_padding

pytestmark = pytest.mark.openvino

SEED = 3
# As in the other runtime: float layers are summed in another order.
RELATIVE_TOLERANCE = 2e-5
# Of each network: its binary layers that OpenVINO computes in float.
NETWORKS = {
    "resnet_option_a": set(),
    "resnet_rprelu": set(),
    "vgg": {"14"},
    "mobilenet": set(),
    "groups": {"5"},
    "same_twice": set(),
    "bias_dilation": set(),
}


class Sum(nn.Module):
    """A residual connection whose sum one layer alone reads."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x)


def outputs(path: Path, pixels: Tensor) -> np.ndarray:
    return compile_for_cpu(path, threads=1, batch=len(pixels))(pixels.numpy())[0]


def expected(network: nn.Module, pixels: Tensor) -> np.ndarray:
    with torch.no_grad():
        return network(pixels).numpy()


def plain(*layers: nn.Module) -> nn.Module:
    """Return ``layers`` in turn with random thresholds."""
    network = nn.Sequential(*layers).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, BinaryConv2d):
                module.threshold.normal_(0, 0.2)
    return network


@pytest.fixture(scope="module", autouse=True)
def openvino() -> None:
    """Skip where the rival is not installed."""
    pytest.importorskip("openvino", reason="openvino comes with the extra 'bench'")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_computes_what_pytorch_computes(name: str, tmp_path: Path) -> None:
    network, path = build(name), tmp_path / "model.xml"
    report = export_openvino_checked(network, images(name), path).report
    assert {layer.name for layer in report.layers if layer.arithmetic is Arithmetic.FLOAT} == NETWORKS[name]
    on_bits = sum(layer.arithmetic is Arithmetic.BITS for layer in report.layers)
    assert sum(report.kernels.values()) == on_bits > 0
    assert max(report.error, report.free_error) < RELATIVE_TOLERANCE
    assert report.top1_agreement == 1.0
    pixels = images(name, batch=3, seed=SEED)
    own = expected(network, pixels)
    np.testing.assert_allclose(
        outputs(path, pixels), own, rtol=0, atol=RELATIVE_TOLERANCE * np.abs(own).max()
    )


@pytest.mark.parametrize("activation", [nn.Identity, nn.ReLU, nn.PReLU])
def test_a_sum_that_is_only_binarized(activation: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(SEED)
    block = Sum(nn.Sequential(binary_conv(16, 16, padding=1), nn.BatchNorm2d(16)))
    network = plain(*stem(), block, activation(), binary_conv(16, 16, padding=1), *head(16))
    pixels = torch.randn(4, 3, 10, 12)
    export_openvino_checked(network, pixels, tmp_path / "model.xml")
    own = expected(network, pixels)
    np.testing.assert_allclose(outputs(tmp_path / "model.xml", pixels), own, rtol=0, atol=1e-5 * own.std())


def test_values_at_the_threshold_are_ones(tmp_path: Path) -> None:
    torch.manual_seed(SEED)
    layer = plain(binary_conv(8, 4, padding=1))
    with torch.no_grad():
        layer[0].threshold[0] = 0.0
    threshold = layer[0].threshold.detach().view(1, 8, 1, 1)
    at = threshold.expand(1, 8, 5, 7).clone()
    below = torch.nextafter(at, torch.tensor(-torch.inf))
    beside_zero = at.clone()
    beside_zero[:, 0] = -0.0
    pixels = torch.cat([at, below, beside_zero])
    export_openvino_checked(layer, torch.randn(2, 8, 5, 7), tmp_path / "model.xml")
    got = outputs(tmp_path / "model.xml", pixels)
    assert np.array_equal(got, expected(layer, pixels))
    assert np.array_equal(got[0], -got[1]) and np.array_equal(got[0], got[2])


@pytest.mark.parametrize("channels", [12, 20])
def test_numbers_of_channels_that_its_kernel_gets_wrong_stay_in_float(channels: int, tmp_path: Path) -> None:
    torch.manual_seed(SEED)
    network = plain(*stem(channels), binary_conv(channels, 16, padding=1), *head(16))
    report = export_openvino_checked(network, torch.randn(3, 3, 10, 12), tmp_path / "model.xml").report
    (layer,) = report.layers
    assert layer.arithmetic is Arithmetic.FLOAT and "multiple of 8" in layer.reason
    assert report.kernels == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"group": 2}, "groups"),
        ({"channels": 70}, "multiple"),
        ({"pads": [0, 3, 0, 0]}, "pads"),
        ({"pads": [0, 0, 0, 3]}, "pads"),
        ({"pads": [5, 2, 5, 2]}, ""),
        ({"kernel_shape": [1, 9]}, "windows"),
        ({"kernel_shape": [9, 1]}, ""),
        ({"strides": [2, 2]}, ""),
        ({"strides": [3, 3]}, "steps"),
    ],
)
def test_why_a_layer_is_not_on_bits(change: dict[str, object], words: str) -> None:
    attributes = {"group": 1, "channels": 64, "pads": [1, 1, 1, 1], "kernel_shape": [3, 3], **change}
    node = ir.Node("ai.dirnet", "BinaryConv2d", [], ir.convenience.convert_attributes(attributes))
    node.outputs[0].shape = ir.Shape(["N", 8, 8, 16])
    reason = why_not_bits(node, side_padding=2)
    assert words in reason and bool(reason) == bool(words)


@pytest.mark.parametrize(
    ("kernel", "options", "size", "on_bits"),
    [
        ((9, 1), {"padding": (4, 0)}, 12, True),
        ((5, 5), {"padding": 2}, 12, True),
        ((5, 5), {"padding": 2}, 3, False),
        ((7, 7), {"padding": 3}, 12, most_side_padding),
        ((3, 3), {"padding": 2, "dilation": 2, "stride": 2}, 13, True),
        ((3, 3), {"padding": 2, "dilation": 2, "stride": 3}, 13, False),
    ],
)
def test_windows(
    kernel: tuple[int, int],
    options: dict[str, object],
    size: int,
    on_bits: bool | Callable[[], int],
    tmp_path: Path,
) -> None:
    torch.manual_seed(SEED)
    network = plain(*stem(), binary_conv(16, 16, kernel, **options), *head(16))
    pixels = torch.randn(2, 3, size, size)
    if size == 3:
        network.insert(3, nn.AvgPool2d(3))
    report = export_openvino_checked(network, pixels, tmp_path / "model.xml").report
    wanted = on_bits if isinstance(on_bits, bool) else on_bits() >= options["padding"]
    assert (report.layers[0].arithmetic is Arithmetic.BITS) is wanted
    own = expected(network, pixels)
    np.testing.assert_allclose(outputs(tmp_path / "model.xml", pixels), own, rtol=0, atol=1e-5 * own.std())


def test_a_difference_is_found_at_its_layer(tmp_path: Path) -> None:
    torch.manual_seed(SEED)
    units = [binary_conv(16, 16, padding=1), nn.BatchNorm2d(16), binary_conv(16, 16, padding=1)]
    network = plain(*stem(), *units, *head(16))
    path, pixels = tmp_path / "model.xml", torch.randn(3, 3, 10, 12)
    layers = export_openvino_checked(network, pixels, path).report.layers
    first, second = (layer.name for layer in layers)
    with torch.no_grad():
        network.get_submodule(second).threshold[0] += 0.5
    with pytest.raises(ExportMismatch) as mismatch:
        verify_openvino(network, path, layers, pixels)
    assert mismatch.value.layer == second
    # The file's own thresholds are old ones, although what is told of them is new.
    moved = network.get_submodule(second).threshold.detach().numpy().reshape(1, -1, 1, 1)
    told = (layers[0], dataclasses.replace(layers[1], threshold=moved))
    with pytest.raises(ExportMismatch, match="the output"):
        verify_openvino(network, path, told, pixels)
    with torch.no_grad():
        network.get_submodule(second).threshold[0] -= 0.5
        network.get_submodule(first).weight[3].neg_()
    with pytest.raises(ExportMismatch) as mismatch:
        verify_openvino(network, path, layers, pixels)
    assert mismatch.value.layer == second


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(SEED)
    network, other = (plain(*stem(), binary_conv(16, 16, padding=1), *head(16)) for _ in range(2))
    path, pixels = tmp_path / "model.xml", torch.randn(2, 3, 10, 12)
    export_openvino_checked(network, pixels, path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    honest = export.build
    monkeypatch.setattr(export, "build", lambda _student, *rest: honest(other, *rest))
    with pytest.raises(ExportMismatch, match="Nothing was written"):
        export_openvino_checked(network, pixels, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert set(before) == {"model.xml", "model.bin"}


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = plain(*stem(), binary_conv(16, 16, padding=1), *head(16))
    with pytest.raises(UsageError, match=r"\.xml"):
        export_openvino_checked(network, torch.zeros(1, 3, 8, 8), tmp_path / "model.onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(DirnetError, match="Cannot write"):
        export_openvino_checked(network, torch.randn(1, 3, 8, 8), tmp_path / "file" / "model.xml")
    with pytest.raises(UsageError, match="classifiers only"):
        require_openvino_task(RunConfig(recipe=Recipe(), classes=2, task=Task.DETECTION))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match=r"dirnet-convert\[bench\]"):
        require_openvino_task(RunConfig(recipe=Recipe(), classes=2))
