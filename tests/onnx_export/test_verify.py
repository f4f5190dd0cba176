"""Verification passes on a right file, and names the layer where a file was corrupted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_networks import build, images
from torch import nn

from dirnet_convert.onnx_export import checked
from dirnet_convert.onnx_export.engine_check import relative_error
from dirnet_convert.onnx_export.exporter import float_model
from dirnet_convert.onnx_export.lockstep import Follow, compare_bits, run_lockstep
from dirnet_convert.onnx_export.verify import verify_export
from dirnet_convert.onnx_export.verify_report import ExportMismatch, Tolerances
from dirnet_convert.runtime.session import Kernels

NAME = "resnet_per_convolution"
Exported = Callable[[str], onnx.ModelProto]


def corrupt(
    model: onnx.ModelProto, node: str, index: int, change: Callable[[np.ndarray], np.ndarray]
) -> onnx.ModelProto:
    """Return a copy of ``model`` with a changed constant at input ``index`` of ``node`` alone."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    (chosen,) = (n for n in copied.graph.node if n.name == node)
    tensors = {t.name: t for t in copied.graph.initializer}
    array = change(onnx.numpy_helper.to_array(tensors[chosen.input[index]]).copy())
    copied.graph.initializer.append(onnx.numpy_helper.from_array(array, "corrupted"))
    chosen.input[index] = "corrupted"
    return copied


def input_index(model: onnx.ModelProto, node: str, name: str) -> int:
    from dirnet_convert.onnx_export.operators import OPERATORS

    (chosen,) = (n for n in model.graph.node if n.name == node)
    return OPERATORS[chosen.op_type].input_names().index(name)


def check(model: onnx.ModelProto, name: str = NAME) -> None:
    verify_export(build(name), model, images(name, 2), engines=(Kernels.STOCK,))


def flip_one_bit(words: np.ndarray) -> np.ndarray:
    words.flat[0] ^= np.uint64(1)
    return words


def shift_first(vector: np.ndarray) -> np.ndarray:
    vector[0] += np.float32(0.05)
    return vector


def double_first(vector: np.ndarray) -> np.ndarray:
    vector[0] *= np.float32(2)
    return vector


def test_a_flipped_weight_is_found_in_its_layer(exported: Exported) -> None:
    model = corrupt(exported(NAME), "layer1.1.conv1", 1, flip_one_bit)
    with pytest.raises(ExportMismatch, match="1 of 2304 packed weights") as caught:
        check(model)
    assert caught.value.layer == "layer1.1.conv1"


@pytest.mark.parametrize(("name", "change"), [("scale", double_first), ("bias", shift_first)])
@pytest.mark.parametrize("layer", ["layer1.0.conv1", "layer2.0.conv2"])
def test_wrongly_folded_batch_norm_is_found_in_its_layer(
    exported: Exported, layer: str, name: str, change: Callable
) -> None:
    model = exported(NAME)
    with pytest.raises(ExportMismatch) as caught:
        check(corrupt(model, layer, input_index(model, layer, name), change))
    assert caught.value.layer == layer
    assert layer.replace("conv", "bn") in str(caught.value)


def test_a_changed_threshold_is_found_in_the_layer_that_it_is_for(exported: Exported) -> None:
    model = exported(NAME)
    # The convolution before writes the bits, and holds the thresholds of the next one.
    index = input_index(model, "layer1.0.conv1", "threshold")
    with pytest.raises(ExportMismatch, match="thresholds") as caught:
        check(corrupt(model, "layer1.0.conv1", index, shift_first))
    assert caught.value.layer == "layer1.0.conv2"


def test_a_wrong_float_layer_is_found_at_the_first_binary_layer_behind_it(exported: Exported) -> None:
    with pytest.raises(ExportMismatch, match="bits that it reads") as caught:
        check(corrupt(exported(NAME), "stem.0/Conv", 1, lambda w: w * np.float32(1.1)))
    assert caught.value.layer == "layer1.0.conv1"


def test_a_wrong_last_layer_is_found_at_the_output(exported: Exported) -> None:
    with pytest.raises(ExportMismatch, match="the output"):
        check(corrupt(exported(NAME), "fc/Gemm", 2, lambda b: b + np.float32(0.5)))


def test_a_wrong_activation_is_found_in_its_layer(exported: Exported) -> None:
    model = exported("resnet_rprelu")
    index = input_index(model, "layer2.1.conv1", "slope")
    with pytest.raises(ExportMismatch) as caught:
        check(corrupt(model, "layer2.1.conv1", index, double_first), "resnet_rprelu")
    assert caught.value.layer == "layer2.1.conv1"


def test_an_operator_that_computes_something_else_is_found(exported: Exported) -> None:
    copied = onnx.ModelProto()
    copied.CopyFrom(exported(NAME))
    (node,) = (n for n in copied.graph.node if n.name == "layer2.0.conv1")
    (clip,) = (a for a in node.attribute if a.name == "clip_max")
    clip.f = 0.5
    with pytest.raises(ExportMismatch) as caught:
        check(copied)
    assert caught.value.layer == "layer2.0.conv1"


def test_another_network_does_not_pass(exported: Exported) -> None:
    with pytest.raises(ExportMismatch):
        verify_export(build(NAME, seed=5), exported(NAME), images(NAME), engines=(Kernels.STOCK,))


def test_nothing_is_written_when_verification_fails(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = corrupt(exported(NAME), "layer1.0.conv1", 1, flip_one_bit)
    monkeypatch.setattr(checked, "binary_model", lambda *_: (wrong, {}))
    path = tmp_path / "model.onnx"
    for before in (None, b"an older file"):
        if before is not None:
            path.write_bytes(before)
        with pytest.raises(ExportMismatch):
            checked.export_checked(build(NAME), images(NAME), path, engines=(Kernels.STOCK,))
        assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if before is None else [before])


def test_a_checked_export_is_written(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked, "binary_model", lambda *_: (exported(NAME), {}))
    written = checked.export_checked(build(NAME), images(NAME), tmp_path / "model.onnx")
    assert onnx.load(written.result.path) == exported(NAME)
    assert {engine.kernels for engine in written.report.engines} == set(checked.available_engines())


def test_without_the_library_stock_onnx_runtime_verifies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIRNET_LIBRARY", "/no/such/file.so")
    assert checked.available_engines() == (Kernels.STOCK,)


def test_lockstep_goes_on_with_the_given_bits() -> None:
    network = build("groups")
    x = images("groups")
    own = run_lockstep(network, x, {}, watched=frozenset({"3"}))
    assert own.bits == {} and torch.equal(own.output, network(x))
    given = torch.ones(2, 16, 10, 12)
    followed = run_lockstep(network, x, {("3", 1): given}, watched=frozenset({"3"}))
    assert not torch.equal(followed.outputs["3"][0], own.outputs["3"][0])
    assert followed.bits["3", 1].flipped > 0
    free = run_lockstep(network, x, {("3", 1): given}, follow=Follow.OWN)
    assert free.bits == followed.bits and torch.equal(free.output, own.output)


def test_a_flip_is_measured_by_its_distance_from_the_threshold() -> None:
    x = torch.tensor([1.0, -1.0, 0.001])
    own = torch.tensor([1.0, -1.0, 1.0])
    near = compare_bits(x, torch.zeros(3), own, torch.tensor([1.0, -1.0, -1.0]))
    assert near.flipped == 1 and near.worst_distance < 0.002
    far = compare_bits(x, torch.zeros(3), own, torch.tensor([-1.0, -1.0, 1.0]))
    assert far.worst_distance > 1


def test_relative_error() -> None:
    reference = torch.tensor([3.0, -4.0])
    assert relative_error(reference, reference) == 0
    assert relative_error(reference + 0.1, reference) == pytest.approx(0.1 / (12.5**0.5), rel=1e-5)
    assert relative_error(torch.tensor([float("nan"), 0.0]), reference) == float("inf")
    assert relative_error(reference[:1], reference) == float("inf")


def test_a_float_model_is_compared_by_its_logits(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 8 * 10, 3)).eval()
    x = images("groups")
    size = checked.verified_float(network, x, tmp_path / "float.onnx").write()
    assert size == (tmp_path / "float.onnx").stat().st_size > 0
    model = onnx.load(tmp_path / "float.onnx")
    with torch.no_grad():
        network[2].bias += 1
    with pytest.raises(ExportMismatch):
        checked.check_float(network, model, x, Tolerances())


def test_a_float_model_may_round_as_much_as_pytorch_does_itself() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 4, 3), nn.Flatten(), nn.LazyLinear(3)).eval()
    x, strict = images("groups"), Tolerances(rounding=1e-12)
    with torch.no_grad():
        network(x)
        model = float_model(network, x[:1])
        assert checked.check_float(network, model, x, strict) > 1e-12
        network[3].bias += 1e-3
    with pytest.raises(ExportMismatch):
        checked.check_float(network, model, x, strict)


class Cancelling(nn.Module):
    """Adds a large number and takes it away, which leaves little of what was there in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.large = 1e7
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(3 * 10 * 12, 4))
        with torch.no_grad():
            self.fc[1].weight *= 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + self.large - self.large


def test_a_network_that_rounds_everything_away_does_not_allow_everything() -> None:
    torch.manual_seed(0)
    network, x = Cancelling().eval(), images("groups")
    with torch.no_grad():
        own, exact = network(x).double(), copy.deepcopy(network).double()(x.double())
    # Eight times that is what such a network would allow.
    assert relative_error(own, exact) > 0.1
    model = float_model(network, x[:1])
    assert checked.check_float(network, model, x, Tolerances()) < 1e-3
    with torch.no_grad():
        network.fc[1].bias += 1
    with pytest.raises(ExportMismatch, match="root mean square"):
        checked.check_float(network, model, x, Tolerances())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nothing_equals_logits_that_are_no_numbers(value: float) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 10 * 12, 4)).eval()
    with torch.no_grad():
        network[1].bias[0] = value
    x = images("groups")
    model = float_model(network, x[:1])
    with pytest.raises(ExportMismatch, match="finite"):
        checked.check_float(network, model, x, Tolerances())
