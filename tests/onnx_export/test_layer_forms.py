"""Every form of layer that becomes binary gives in ONNX Runtime what it gives in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.layers import Conv2dSame, ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn
from torch.nn import functional

from dirnet_convert.binarize.layers import BinaryLayer, binary_layers
from dirnet_convert.convert.binarize_network import binarize_network
from dirnet_convert.convert.calibrate import calibrate
from dirnet_convert.onnx_export.checked import export_checked
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions, Threshold

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "same": lambda: nn.Conv2d(8, 12, 3, padding="same"),
    "same_even": lambda: nn.Conv2d(8, 12, (4, 2), padding="same", dilation=(1, 2)),
    "valid": lambda: nn.Conv2d(8, 12, 3, padding="valid", stride=2),
    "same_by_size": lambda: Conv2dSame(8, 12, 3, stride=2),
    "same_by_size_uneven": lambda: Conv2dSame(8, 12, (5, 2), stride=(3, 2), dilation=(1, 2)),
    "circular": lambda: nn.Conv2d(8, 12, 3, padding=(2, 1), padding_mode="circular"),
    "reflect": lambda: nn.Conv2d(8, 12, 3, padding=1, padding_mode="reflect", stride=2),
    "replicate": lambda: nn.Conv2d(8, 12, (4, 3), padding="same", padding_mode="replicate"),
    "standardized": lambda: StdConv2d(8, 12, 3, padding=1),
    "standardized_same": lambda: StdConv2dSame(8, 12, 3, stride=2),
    "scaled": lambda: ScaledStdConv2d(8, 12, 3),
    "scaled_same": lambda: ScaledStdConv2dSame(8, 12, 3, stride=2),
    "dilated_groups_bias": lambda: nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=4),
    "padded_before": lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 2, 1)), nn.Conv2d(8, 12, 3, stride=2)),
    "padded_by_function": lambda: PaddedByFunction(),
    "linear_on_pixels": lambda: OnPixels(),
    "linear_on_vectors": lambda: OnVectors(),
    "used_twice": lambda: UsedTwice(),
    "read_too": lambda: ReadToo(),
}


class PaddedByFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 12, 3, padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class OnPixels(nn.Module):
    """Linear layers on (N, H, W, C), as ConvNeXt has them."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 20), nn.Linear(20, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)


class OnVectors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.linear(x.mean((2, 3))))[..., None, None]


class ReadToo(nn.Module):
    """Reads a weight beside calling its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.zeros(1, device=self.conv.weight.device)
        return self.conv(x) + self.conv.weight.mean((1, 2, 3)).view(1, -1, 1, 1)


class UsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.conv(functional.relu(self.conv(x))))


def _network(layer: nn.Module) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), layer, nn.SiLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)),
    )


@pytest.mark.parametrize("name", LAYERS)
def test_a_binary_layer_of_every_form_is_exported_as_it_computes(
    name: str, generator: torch.Generator, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    images = torch.randn(3, 3, 13, 11, generator=generator)
    options = ConvertOptions(binarize=("3*",))
    student = binarize_network(
        _network(LAYERS[name]()).eval(), images[:1], options, EstimatorOptions()
    ).student
    calibrate(student, images, Threshold.MEDIAN)
    # Thresholds off the medians, and a batch norm that changes the sums' signs.
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, BinaryLayer):
                module.threshold.add_(torch.randn(module.threshold.shape, generator=generator) * 0.1)
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator))
    layers = binary_layers(student)
    assert len(layers) == (2 if name in ("linear_on_pixels", "used_twice") else 1)
    checked = export_checked(student.eval(), images, tmp_path / "model.onnx")
    assert len(checked.result.binary_nodes) == len(layers) + (name == "used_twice")
    assert all(engine.error < 1e-3 for engine in checked.report.engines)
