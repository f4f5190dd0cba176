"""Binary layers against their definition."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from dirnet_convert.binarize.activations import ShiftedPReLU
from dirnet_convert.binarize.layers import BinaryConv2d, BinaryLinear, binary_layers
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions

SEED = 3
OPTIONS = ConvertOptions()
ESTIMATOR = EstimatorOptions()


@pytest.fixture(autouse=True)
def seeded() -> None:
    print(f"seed {SEED}")
    torch.manual_seed(SEED)


def _layer(conv: nn.Conv2d, options: ConvertOptions = OPTIONS) -> BinaryConv2d:
    layer = BinaryConv2d.from_conv(conv, options, ESTIMATOR)
    with torch.no_grad():
        layer.threshold.copy_(torch.randn_like(layer.threshold) * 0.3)
    return layer


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups", "bias"),
    [
        (1, 1, 1, 1, False),
        (2, (1, 0), 1, 2, True),
        (1, "same", 1, 1, True),
        (1, "same", (2, 1), 6, False),
        (1, "valid", 2, 3, True),
    ],
)
def test_convolution_is_sign_then_zero_padding_then_scale_and_bias(
    stride: int, padding: int | str | tuple[int, int], dilation: int, groups: int, bias: bool
) -> None:
    kernel = (3, 2) if padding == "same" else 3
    conv = nn.Conv2d(
        6, 12, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias
    )
    layer = _layer(conv)
    x = torch.randn(2, 6, 9, 8)
    expected_conv = nn.Conv2d(
        6, 12, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=False
    )
    expected_conv.weight.data = layer.binary_weight()
    signs = torch.where(x >= layer.threshold.view(1, -1, 1, 1), 1.0, -1.0)
    with torch.no_grad():
        expected = expected_conv(signs) * layer.weight_scale().view(1, -1, 1, 1)
        if conv.bias is not None:
            expected = expected + conv.bias.view(1, -1, 1, 1)
    for training, gradient in itertools.product((True, False), repeat=2):
        with torch.set_grad_enabled(gradient):
            assert torch.equal(layer.train(training)(x), expected)
            assert torch.equal(layer.binarize_input(x), signs)


def test_binary_weight_and_scale() -> None:
    layer = _layer(nn.Conv2d(4, 8, 3))
    assert layer.binary_weight().shape == (8, 4, 3, 3)
    assert set(layer.binary_weight().unique().tolist()) == {-1.0, 1.0}
    assert set(layer.weight_scale().tolist()) <= {0.5, 1.0}
    balance = layer.binary_weight().flatten(1).mean(1).abs().max()
    assert balance < 0.5


def test_each_switch_of_imb_changes_the_result() -> None:
    conv = nn.Conv2d(4, 8, 3)
    conv.weight.data = conv.weight.data**3 + 0.05
    x = torch.randn(1, 4, 6, 6)
    outputs = []
    for balance, scale in itertools.product((True, False), repeat=2):
        options = dataclasses.replace(OPTIONS, balance_weights=balance, scale_weights=scale)
        layer = BinaryConv2d.from_conv(conv, options, ESTIMATOR)
        outputs.append(layer(x))
        if not balance:
            assert torch.equal(layer.binary_weight(), torch.where(conv.weight >= 0, 1.0, -1.0))
        if not scale:
            assert torch.equal(layer.weight_scale(), torch.ones(8))
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(outputs, 2))


def test_threshold_learns_only_when_asked() -> None:
    assert _layer(nn.Conv2d(2, 2, 1)).threshold.requires_grad
    fixed = dataclasses.replace(OPTIONS, learn_threshold=False)
    layer = _layer(nn.Conv2d(2, 2, 3), fixed)
    assert not layer.threshold.requires_grad
    layer(torch.randn(1, 2, 5, 5)).sum().backward()
    assert layer.threshold.grad is None


def test_gradients_reach_weight_threshold_and_input() -> None:
    layer = _layer(nn.Conv2d(3, 5, 3, padding=1))
    x = torch.randn(2, 3, 6, 6, requires_grad=True)
    layer(x).square().sum().backward()
    for tensor in (x, layer.weight, layer.threshold, layer.bias):
        assert tensor is not None and tensor.grad is not None and tensor.grad.abs().sum() > 0


def test_weight_gradient_is_orthogonal_to_the_weight() -> None:
    # w_std does not change with the size of w, so the gradient has no part along w.
    layer = _layer(nn.Conv2d(3, 5, 3))
    layer(torch.randn(2, 3, 6, 6)).square().sum().backward()
    gradient, weight = layer.weight.grad, layer.weight.detach()
    assert gradient is not None
    along = (gradient * weight).flatten(1).sum(1) / (
        gradient.flatten(1).norm(dim=1) * weight.flatten(1).norm(dim=1)
    )
    assert along.abs().max() < 1e-4


@pytest.mark.parametrize("channels", [3, 20])
@pytest.mark.parametrize("stride", [(2, 2), (1, 3)])
def test_strided_pointwise_gradients_are_those_of_the_pixels_left(
    channels: int, stride: tuple[int, int]
) -> None:
    layer = _layer(nn.Conv2d(channels, 24, 1, stride=stride))
    images = torch.randn(4, channels, 32, 31).to(memory_format=torch.channels_last)
    x = images.clone().requires_grad_()
    y = layer(x)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    got = (x.grad, layer.weight.grad, layer.threshold.grad, layer.bias.grad)

    twin = _layer(nn.Conv2d(channels, 24, 1))
    twin.load_state_dict(layer.state_dict())
    left = images[:, :, :: stride[0], :: stride[1]].clone().requires_grad_()
    twin(left).backward(gradient)
    expected = torch.zeros_like(images)
    expected[:, :, :: stride[0], :: stride[1]] = left.grad
    torch.testing.assert_close(
        got, (expected, twin.weight.grad, twin.threshold.grad, twin.bias.grad), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_copies_around_the_input_are_signs_too(mode: str) -> None:
    conv = nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode=mode)
    layer, x = _layer(conv), torch.randn(1, 2, 6, 5)
    # Copying and taking signs commute; the float convolution knows nothing of zeros after sign().
    twin = nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode=mode)
    with torch.no_grad():
        twin.weight.copy_(layer.binary_weight() * layer.weight_scale().view(-1, 1, 1, 1))
        twin.bias.copy_(conv.bias)
        torch.testing.assert_close(
            layer(x), twin(torch.where(x >= layer.threshold.view(-1, 1, 1), 1.0, -1.0))
        )


def test_an_image_alone_is_one_of_a_batch() -> None:
    layer = _layer(nn.Conv2d(3, 4, 3, padding=1))
    x = torch.randn(2, 3, 6, 5)
    assert torch.equal(layer(x[0]), layer(x)[0])


def test_linear() -> None:
    linear = nn.Linear(7, 5)
    layer = BinaryLinear.from_linear(linear, OPTIONS, ESTIMATOR)
    x = torch.randn(2, 3, 7)
    signs = torch.where(x >= 0, 1.0, -1.0)
    expected = functional.linear(signs, layer.binary_weight()) * layer.weight_scale() + linear.bias
    torch.testing.assert_close(layer(x), expected)
    assert layer.weight_scale().shape == (5,)


def test_depthwise_pointwise_convolution_of_one_tap_works() -> None:
    layer = _layer(nn.Conv2d(4, 4, 1, groups=4))
    y = layer(torch.randn(1, 4, 3, 3))
    assert bool(torch.isfinite(y).all())


def test_observing_sets_both_quantiles() -> None:
    layer = _layer(nn.Conv2d(3, 5, 3))
    layer.observe(torch.randn(4, 3, 8, 8))
    assert 0 < layer.weight_estimator.quantile < 0.5
    assert 0 < layer.input_estimator.quantile < 0.5


def test_state_dict_round_trip() -> None:
    network = nn.Sequential(_layer(nn.Conv2d(3, 5, 3)), nn.BatchNorm2d(5), _layer(nn.Conv2d(5, 5, 3)))
    assert len(binary_layers(network)) == 2
    other = nn.Sequential(_layer(nn.Conv2d(3, 5, 3)), nn.BatchNorm2d(5), _layer(nn.Conv2d(5, 5, 3)))
    other.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(network.eval()(x), other.eval()(x))


def test_shifted_prelu() -> None:
    activation = ShiftedPReLU(2)
    with torch.no_grad():
        activation.shift.copy_(torch.tensor([1.0, -1.0]))
        activation.weight.copy_(torch.tensor([0.5, 0.1]))
    for shape in ((1, 2), (1, 2, 1, 1)):
        assert activation(torch.tensor([-3.0, 0.5]).view(shape)).flatten().tolist() == pytest.approx(
            [-1.0, -0.05]
        )


@pytest.mark.slow
def test_compiles_to_one_graph_and_changes_of_t_compile_nothing() -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    convolutions = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1, stride=2)
    first, *others = (_layer(conv) for conv in convolutions)
    network = nn.Sequential(first, nn.BatchNorm2d(4), *others)
    counter = CompileCounterWithBackend("inductor")
    compiled = torch.compile(network, backend=counter, fullgraph=True, dynamic=False)
    x = torch.randn(2, 3, 8, 8)
    for progress in (0.0, 0.4, 0.9):
        for layer in binary_layers(network):
            layer.observe(torch.randn(2, layer.threshold.numel(), 8, 8))
            layer.weight_estimator.set_progress(progress)
            layer.input_estimator.set_progress(progress)
        gradients = []
        for call in (network, compiled):
            network.zero_grad()
            call(x).square().sum().backward()
            gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
        for eager, other in zip(*gradients, strict=True):
            torch.testing.assert_close(eager, other, rtol=1e-3, atol=1e-3)
    assert counter.frame_count == 1
