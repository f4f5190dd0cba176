from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import fx, nn

from dirnet_convert.binarize import layers as layers_module
from dirnet_convert.binarize.kernel_conv import Arithmetic, kernel_conv2d
from dirnet_convert.binarize.layers import BinaryConv2d, binary_layers
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.finetune import norm_tails
from dirnet_convert.finetune.arithmetic import set_arithmetic
from dirnet_convert.finetune.loop import train
from dirnet_convert.recipe import (
    AugmentKind,
    ConvertOptions,
    EstimatorKind,
    EstimatorOptions,
    Precision,
    TrainArithmetic,
)
from dirnet_convert.runtime.torch_norm_tail import norm_tail

SEED = 3
CPU = torch.device("cpu")


def _pair(conv: nn.Conv2d, kind: EstimatorKind) -> tuple[BinaryConv2d, BinaryConv2d]:
    """The same layer with both arithmetics."""
    options = EstimatorOptions(weights=kind, inputs=kind)
    plain = BinaryConv2d.from_conv(conv, ConvertOptions(learn_threshold=True), options).train()
    fast = copy.deepcopy(plain)
    set_arithmetic(fast, TrainArithmetic.KERNELS, CPU, print)
    assert fast.arithmetic is Arithmetic.KERNELS
    return plain, fast


@pytest.mark.parametrize("kind", EstimatorKind)
@pytest.mark.parametrize(
    "arguments",
    [
        {"padding": 1},
        {"padding": 1, "stride": 2, "groups": 2},
        {"padding": "same", "dilation": 2},
        {"padding": 1, "padding_mode": "circular", "bias": False},
    ],
)
@pytest.mark.parametrize("channels", [6, 24])  # of which the kernels leave the gradients of one to PyTorch
def test_layer_gives_the_same_sums_and_gradients(kind: EstimatorKind, arguments: dict, channels: int) -> None:
    _check_layer(nn.Conv2d(channels, 20, (2, 3), **arguments), kind, compiled=False)


def test_padding_at_the_end_alone_gives_the_same_sums_and_gradients() -> None:
    _check_layer(nn.Conv2d(6, 20, 2, padding="same"), EstimatorKind.DTE, compiled=False)


@pytest.mark.parametrize("channels", [6, 24])
def test_compiled_layer_gives_the_same_sums_and_gradients(channels: int) -> None:
    _check_layer(nn.Conv2d(channels, 20, 3, padding=1), EstimatorKind.DTE, compiled=True)


@pytest.mark.parametrize(
    ("conv", "expected"),
    [
        (nn.Conv2d(16, 16, 3), 1),
        (nn.Conv2d(16, 16, 3, groups=2), 1),
        (nn.Conv2d(16, 16, 3, groups=16), 0),
        (nn.Conv2d(16, 16, 3, groups=4), 0),
    ],
)
@pytest.mark.parametrize("half", [False, True])
def test_narrow_groups_and_bfloat16_have_torchs_gradients(conv: nn.Conv2d, expected: int, half: bool) -> None:
    _, layer = _pair(conv, EstimatorKind.STE)
    with torch.profiler.profile() as seen, torch.autocast("cpu", torch.bfloat16, enabled=half):
        layer(torch.randn(2, 16, 5, 5, requires_grad=True)).sum().backward()
    calls = sum(e.count for e in seen.key_averages() if e.key == "dirnet::binary_conv2d_backward")
    assert calls == (0 if half else expected)


def _check_layer(conv: nn.Conv2d, kind: EstimatorKind, compiled: bool) -> None:
    print(f"seed {SEED}")
    torch.manual_seed(SEED)
    layers = _pair(conv, kind)
    image, slope = torch.randn(3, conv.in_channels, 9, 10), None
    results = []
    for layer in layers:
        x = image.clone().requires_grad_()
        run = torch.compile(layer, dynamic=False, fullgraph=True) if compiled else layer
        y = run(x)
        slope = torch.randn_like(y) if slope is None else slope
        y.backward(slope)
        results.append((y, x.grad, *(p.grad for p in layer.parameters())))
    assert torch.equal(results[0][0], results[1][0])
    # The kernels round gradients to 16 bits.
    for plain, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-4 * plain.abs().max().item())


def test_evaluation_is_the_same_and_layers_stay_with_torch_while_they_fade(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    print(f"seed {SEED}")
    torch.manual_seed(SEED)
    plain, fast = _pair(nn.Conv2d(6, 8, 3), EstimatorKind.STE)
    x = torch.randn(2, 6, 5, 5)
    with torch.inference_mode():
        assert torch.equal(plain.eval()(x), fast.eval()(x))
    for layer in (plain, fast):
        layer.train().weight_estimator.set_progress(0.0, blend=0.5)
        layer.input_estimator.set_progress(0.0, blend=0.5)
    assert torch.equal(plain(x), fast(x))
    calls = []
    monkeypatch.setattr(layers_module, "kernel_conv2d", lambda *a: calls.append(1) or kernel_conv2d(*a))
    for blend, expected in ((0.5, 0), (1.0, 1)):
        for layer in (plain, fast):
            layer.weight_estimator.set_progress(0.0, blend=1.0)
            layer.input_estimator.set_progress(0.0, blend=blend)
        assert torch.equal(plain(x), fast(x)) and len(calls) == expected


def test_a_compiled_layer_reaches_the_kernels_where_its_fading_ends() -> None:
    _, layer = _pair(nn.Conv2d(6, 8, 3), EstimatorKind.STE)
    run = torch.compile(layer, dynamic=False, fullgraph=True)
    x, calls = torch.randn(2, 6, 5, 5), []
    for blend in (0.5, 0.9, 1.0):
        for estimator in (layer.weight_estimator, layer.input_estimator):
            estimator.set_progress(0.0, blend=blend)
        run(x)  # compiles, which calls the operator, too
        with torch.profiler.profile() as seen:
            run(x)
        calls.append(sum(e.count for e in seen.key_averages() if e.key == "dirnet::binary_conv2d"))
    assert calls == [0, 0, 1]


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("traced", [False, True])
def test_training_has_the_same_losses(
    tiny: ModuleType, tmp_path: Path, precision: Precision, traced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = EstimatorOptions(weights=EstimatorKind.EDE, inputs=EstimatorKind.EDE)
    calls = []
    monkeypatch.setattr(norm_tails, "norm_tail", lambda *args: calls.append(name) or norm_tail(*args))
    losses = []
    for name in (TrainArithmetic.TORCH, TrainArithmetic.KERNELS):
        options = dataclasses.replace(
            tiny.OPTIONS,
            epochs=1,
            lr=0.01,
            augment=AugmentKind.NONE,
            precision=precision,
            arithmetic=name,
        )
        job = tiny.tiny_job(tmp_path / name, options=options, estimator=estimator)
        if traced:
            job = dataclasses.replace(job, student_forward=_traced(job.student_forward))
        seen = _Losses()
        train(job, seen)
        arithmetic = {layer.arithmetic.value for layer in binary_layers(job.student)}
        assert arithmetic == {name.value}
        losses.append(seen.losses)
    # The first step has the same weights; what rounding the gradients changes turns a sign here and there.
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-6 if precision is Precision.FLOAT32 else 0.01)
    bound = 0.01 if precision is Precision.FLOAT32 else 0.05
    assert losses[0] == pytest.approx(losses[1], rel=bound)
    # The stem's norm and those of both binary convolutions, at each step.
    assert calls == [TrainArithmetic.KERNELS] * (3 * len(losses[1]) if traced else 0)


def _traced(network: nn.Module) -> fx.GraphModule:
    class Layers(fx.Tracer):
        def is_leaf_module(self, module: nn.Module, name: str) -> bool:
            return isinstance(module, BinaryConv2d) or super().is_leaf_module(module, name)

    return fx.GraphModule(network, Layers().trace(network))


class _Losses:
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def stepped(self, report: object) -> None:
        self.losses.append(report.loss)

    def __getattr__(self, name: str) -> object:
        return lambda *_: None


def test_without_the_library_auto_says_so_and_kernels_is_refused(
    tiny: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DIRNET_LIBRARY", str(tmp_path / "none.so"))
    notes: list[str] = []
    student = tiny.TinyNetwork(binary=True)
    set_arithmetic(student, TrainArithmetic.AUTO, CPU, notes.append)
    assert len(notes) == 1 and "PyTorch" in notes[0] and "DIRNET_LIBRARY" in notes[0]
    assert all(layer.arithmetic is Arithmetic.TORCH for layer in binary_layers(student))
    with pytest.raises(DirnetError, match="DIRNET_LIBRARY"):
        set_arithmetic(student, TrainArithmetic.KERNELS, CPU, notes.append)


def test_slow_kernels_are_left_alone(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIRNET_ISA", "portable")
    notes: list[str] = []
    student = tiny.TinyNetwork(binary=True)
    set_arithmetic(student, TrainArithmetic.AUTO, CPU, notes.append)
    assert len(notes) == 1 and "portable" in notes[0]
    assert all(layer.arithmetic is Arithmetic.TORCH for layer in binary_layers(student))


def test_accelerators_compute_in_torch(tiny: ModuleType) -> None:
    student = tiny.TinyNetwork(binary=True)
    set_arithmetic(student, TrainArithmetic.AUTO, torch.device("cuda"), pytest.fail)
    assert all(layer.arithmetic is Arithmetic.TORCH for layer in binary_layers(student))
    with pytest.raises(UsageError, match="processors"):
        set_arithmetic(student, TrainArithmetic.KERNELS, torch.device("cuda"), pytest.fail)
