"""What a binary layer starts from, for each class of layer that has a binary twin."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.layers import Conv2dSame, ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.overrides import TorchFunctionMode

from dirnet_convert.binarize.layers import BinaryLinear
from dirnet_convert.binarize.norms import LastAxisBatchNorm
from dirnet_convert.binarize.twins import Likeness, binary_twin, likeness
from dirnet_convert.errors import DirnetError
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions


class _CatchConvolution(TorchFunctionMode):
    """Notes the weights and the padded size that conv2d is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.empty(0)

    def __torch_function__(
        self, func: Callable, types: object, args: tuple = (), kwargs: object = None
    ) -> Tensor:
        if func is functional.conv2d:
            self.weight = args[1].detach()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame])
def test_standardized_weights_are_where_the_twin_starts(kind: type[nn.Conv2d]) -> None:
    torch.manual_seed(1)
    layer = kind(6, 4, 3)
    if hasattr(layer, "gain"):
        nn.init.uniform_(layer.gain, 0.5, 2)
    with _CatchConvolution() as caught, torch.no_grad():
        y = layer(torch.randn(1, 6, 8, 8))
    twin = binary_twin(layer, ConvertOptions(), EstimatorOptions())
    torch.testing.assert_close(twin.weight.detach(), caught.weight)
    assert twin(torch.randn(1, 6, 8, 8)).shape == y.shape


@pytest.mark.parametrize("size", [(7, 8), (8, 9), (5, 5)])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 2, 1), ((5, 2), (3, 1), 1), (3, 2, 2), (1, 2, 1)]
)
def test_padding_by_size_is_the_librarys(
    size: tuple[int, int], kernel: int, stride: int, dilation: int
) -> None:
    torch.manual_seed(2)
    layer = Conv2dSame(3, 4, kernel, stride=stride, dilation=dilation)
    twin = binary_twin(layer, ConvertOptions(), EstimatorOptions())
    signs = torch.where(torch.randn(1, 3, *size) >= 0, 1.0, -1.0)
    with torch.no_grad():
        layer.weight.copy_(twin.binary_weight() * twin.weight_scale().view(-1, 1, 1, 1))
        torch.testing.assert_close(twin(signs), layer(signs))


class _Named(nn.Conv2d):
    pass


class _Changed(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class _ChangedInside(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight.abs(), bias)


def _hooked() -> nn.Module:
    layer = nn.Conv2d(3, 4, 3)
    layer.register_forward_hook(lambda _m, _i, y: 2 * y)
    return layer


def _overridden() -> nn.Module:
    layer = nn.Conv2d(3, 4, 3)
    layer.forward = lambda x: x
    return layer


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: nn.Conv2d(3, 4, 3), Likeness.PLAIN),
        (lambda: nn.Linear(3, 4), Likeness.PLAIN),
        (lambda: Conv2dSame(3, 4, 3), Likeness.PLAIN),
        (lambda: StdConv2d(3, 4, 3), Likeness.STANDARDIZED),
        (lambda: _Named(3, 4, 3), Likeness.SUBCLASS),
        (lambda: _Changed(3, 4, 3), Likeness.OTHER),
        (lambda: _ChangedInside(3, 4, 3), Likeness.OTHER),
        (lambda: _overridden(), Likeness.OTHER),
        (lambda: _hooked(), Likeness.HOOKED),
        (lambda: weight_norm(nn.Conv2d(3, 4, 3)), Likeness.COMPUTED_WEIGHT),
        (lambda: spectral_norm(nn.Linear(3, 4)), Likeness.COMPUTED_WEIGHT),
        (lambda: prune.l1_unstructured(nn.Conv2d(3, 4, 3), "weight", 0.5), Likeness.COMPUTED_WEIGHT),
        (lambda: nn.Conv1d(3, 4, 3), Likeness.OTHER),
        (lambda: nn.Conv3d(3, 4, 3), Likeness.OTHER),
        (lambda: nn.ConvTranspose2d(3, 4, 3), Likeness.OTHER),
        (lambda: nn.Bilinear(3, 4, 5), Likeness.OTHER),
    ],
)
def test_likeness(build: Callable[[], nn.Module], expected: Likeness) -> None:
    # In training, a spectral norm's weight is another at every reading.
    layer = build().eval()
    assert likeness(layer) is expected
    if expected is Likeness.OTHER:
        with pytest.raises(DirnetError, match=type(layer).__name__):
            binary_twin(layer, ConvertOptions(), EstimatorOptions())
    else:
        twin = binary_twin(layer, ConvertOptions(), EstimatorOptions())
        if expected is not Likeness.STANDARDIZED:
            assert torch.equal(twin.weight, layer.weight)
        assert isinstance(twin, BinaryLinear) == isinstance(layer, nn.Linear)


def test_a_norm_over_the_last_axis_is_one_over_channels() -> None:
    torch.manual_seed(4)
    x = torch.randn(2, 5, 6, 3) * 3 + 1
    own, twin = LastAxisBatchNorm(3), nn.BatchNorm2d(3)
    torch.testing.assert_close(own(x), twin(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
    torch.testing.assert_close(own.running_var, twin.running_var)
    assert own.eval()(x[0, 0]).shape == (6, 3)
