"""INT8 beside binary layers: what is quantized, what stays bit by bit, and how ONNX Runtime runs it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_networks import Joined, binary_conv, build, head, images, stem
from torch import nn

from dirnet_convert.errors import DirnetError
from dirnet_convert.onnx_export.exporter import binary_model
from dirnet_convert.onnx_export.operators import DOMAIN
from dirnet_convert.onnx_export.probe import binary_nodes
from dirnet_convert.onnx_export.quantize_rest import QuantizedRest, quantizable_layers, quantize_rest
from dirnet_convert.onnx_export.rest_check import check_engines
from dirnet_convert.onnx_export.sizes import SizeKind, float_layers, int8_layers, size_by_kind
from dirnet_convert.onnx_export.verify_report import Tolerances
from dirnet_convert.recipe import Rest
from dirnet_convert.runtime.int8 import rest_of
from dirnet_convert.runtime.session import Kernels, load_session

Exported = Callable[[str], onnx.ModelProto]
Quantized = Callable[[str], QuantizedRest]
FULL = "resnet_per_convolution"
NAMES = (FULL, "resnet_pooled_shortcut", "vgg", "mobilenet", "squeeze_excite", "float_in_between")


@pytest.fixture(scope="module")
def exported() -> Exported:
    """Models that can be quantized: every float layer is an operator of ONNX Runtime's."""
    return functools.cache(lambda name: binary_model(build(name), images(name)[:1])[0])


@pytest.fixture(scope="module")
def quantized(exported: Exported) -> Quantized:
    return functools.cache(lambda name: quantize_rest(exported(name), images(name, 8).numpy()))


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def operators(model: onnx.ModelProto, path: Path, kernels: Kernels) -> list[str]:
    """Return the operators of the graph that ONNX Runtime makes of ``model``."""
    load_session(model.SerializeToString(), kernels=kernels, optimized_model=path)
    return [node.op_type for node in onnx.load(path).graph.node]


def test_weights_are_stored_in_bytes_with_a_scale_per_channel(quantized: Quantized) -> None:
    result = quantized(FULL)
    held = constants(result.model)
    assert result.layers == ("stem.0/Conv", "layer2.0.downsample.0/Conv/MatMul", "fc/Gemm")
    scales = {
        node.input[0]: held[node.input[1]]
        for node in result.model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in held
    } | {
        node.input[1]: held[node.input[2]]
        for node in result.model.graph.node
        if node.op_type.startswith("StemConv2dInt8")
    }
    weights = {name: value for name, value in held.items() if value.dtype == np.int8 and value.ndim > 1}
    # Output channels come first in Conv and in the transposed Gemm, last in MatMul.
    channels = {value.shape: len(scales[name]) for name, value in weights.items()}
    assert channels == {(16, 3, 7, 7): 16, (16, 32): 32, (5, 32): 5}
    # The row that a mean is a product with is no layer's.
    floats = [name for name, value in held.items() if value.dtype == np.float32 and value.ndim > 1]
    assert floats == ["avgpool/ReduceMean/shares"]


def test_the_model_keeps_its_functions_its_name_and_its_imports(
    exported: Exported, quantized: Quantized
) -> None:
    before, after = exported(FULL), quantized(FULL).model
    was, now = ({function.name: function for function in model.functions} for model in (before, after))
    assert list(now) == sorted(name.replace("StemConv2d", "StemConv2dInt8") for name in was)
    assert (
        all(now[name] == was[name] for name in was.keys() & now.keys()) and len(was.keys() & now.keys()) == 2
    )
    assert sorted((o.domain, o.version) for o in after.opset_import) == sorted(
        (o.domain, o.version) for o in before.opset_import
    )
    assert (after.producer_name, after.graph.name) == ("dirnet", "dirnet")
    assert list(after.graph.value_info) == list(before.graph.value_info) and not after.metadata_props
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)


@pytest.mark.parametrize("name", NAMES)
def test_binary_layers_stay_bit_by_bit(name: str, exported: Exported, quantized: Quantized) -> None:
    before, after = (binary_nodes(model) for model in (exported(name), quantized(name).model))
    assert len(before) == len(after) > 0
    for was, node in zip(before, after, strict=True):
        assert (was.name, was.op_type, was.attributes) == (node.name, node.op_type, node.attributes)
        assert (was.affine_module, was.output_module) == (node.affine_module, node.output_module)
        assert was.threshold.tobytes() == node.threshold.tobytes()
        assert was.constants.keys() == node.constants.keys()
        for key, value in was.constants.items():
            assert value.tobytes() == node.constants[key].tobytes()


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("name", NAMES)
def test_both_engines_give_the_same(name: str, quantized: Quantized) -> None:
    agreement = check_engines(quantized(name).model, images(name, 3), Tolerances())
    assert agreement.images == 3
    assert agreement.flipped_share == 0 and agreement.error < 1e-4


@pytest.mark.usefixtures("library")
def test_engines_that_differ_are_refused(quantized: Quantized) -> None:
    with pytest.raises(DirnetError, match="disagree: the output differs by"):
        check_engines(quantized(FULL).model, images(FULL, 1), Tolerances(rounding=-1.0))


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("kernels", [Kernels.STOCK, Kernels.DIRNET])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (FULL, {"MatMulIntegerToFloat": 1, "QGemm": 1}),
        ("float_in_between", {"QLinearConv": 1, "QGemm": 1}),
        ("mobilenet", {"QLinearConv": 2, "QGemm": 1}),
    ],
)
def test_the_runtime_computes_with_bytes(
    name: str, expected: dict[str, int], quantized: Quantized, tmp_path: Path, kernels: Kernels
) -> None:
    found = operators(quantized(name).model, tmp_path / "optimized.onnx", kernels)
    assert {operator: found.count(operator) for operator in expected} == expected
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm"} & set(found)
    if kernels is Kernels.DIRNET:
        assert sum(operator.startswith("StemConv2dInt8") for operator in found) == 1
        # Part of the operators; the product left in float is the mean over the pixels.
        assert not {"Relu", "Clip", "PRelu", "MaxPool"} & set(found) and found.count("MatMul") == 1


@pytest.mark.parametrize("name", NAMES)
def test_no_processor_saturates_a_sum_of_two_products(name: str, quantized: Quantized) -> None:
    """x86 without VNNI adds them in 16 bits: 2 * 255 * 64 fits, 2 * 255 * 65 does not."""
    model = quantized(name).model
    held = constants(model)
    names = [node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    names += [node.input[1] for node in model.graph.node if node.op_type.startswith("StemConv2dInt8")]
    weights = [held[name] for name in names if name in held and held[name].dtype == np.int8]
    assert len(weights) > 1 and all(np.abs(weight.astype(int)).max() <= 64 for weight in weights)


@pytest.mark.parametrize("seed", range(3))
def test_the_float_layers_are_close(seed: int) -> None:
    """Where nothing is binary, INT8 alone is left to differ."""
    print(f"seed {seed}")
    torch.manual_seed(seed)
    network = nn.Sequential(*stem(), nn.Conv2d(16, 24, 1, bias=False), *head(24)).eval()
    pixels = torch.randn(16, 3, 10, 12)
    model, _ = binary_model(network, pixels[:1])
    result = quantize_rest(model, pixels.numpy())
    plain, coarse = (
        load_session(proto.SerializeToString(), kernels=Kernels.STOCK).run(None, {"input": pixels.numpy()})[0]
        for proto in (model, result.model)
    )
    assert len(result.layers) == 3
    error = np.sqrt(np.square(plain - coarse).mean() / np.square(plain).mean())
    assert 0 < error < 0.02


def test_a_tensor_that_a_layer_shares_stays_float_for_the_binary_one() -> None:
    torch.manual_seed(0)

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = binary_conv(16, 16, padding=1), nn.BatchNorm2d(16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.conv(x)) + x

    first = (binary_conv(16, 16, padding=1), nn.BatchNorm2d(16), nn.Hardtanh())
    both = Joined(Residual(), nn.Conv2d(16, 8, 1, bias=False))
    network = nn.Sequential(*stem(), *first, both, binary_conv(24, 8, 1), *head(8)).eval()
    pixels = torch.randn(8, 3, 10, 12)
    model, _ = binary_model(network, pixels[:1])
    result = quantize_rest(model, pixels.numpy())
    (product,) = (node for node in model.graph.node if node.op_type == "MatMul" and "/Conv" in node.name)
    shared = product.input[0]
    binary = {node.name for node in model.graph.node if shared in node.input and node.domain == DOMAIN}
    readers = {node.name: node.op_type for node in result.model.graph.node if shared in node.input}
    assert binary and binary <= readers.keys()
    assert product.name not in readers and "QuantizeLinear" in readers.values()


def test_a_vector_that_a_layer_shares_stays_as_it_is_for_the_others() -> None:
    torch.manual_seed(0)
    conv, wide = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
    network = nn.Sequential(conv, nn.ReLU(), binary_conv(16, 16, padding=1), wide, nn.ReLU(), *head(16))
    with torch.no_grad():
        conv.bias.zero_()
        wide.bias.zero_()
    pixels = torch.randn(8, 3, 10, 12)
    model, _ = binary_model(network.eval(), pixels[:1])
    uses = [name for node in model.graph.node for name in node.input if name in constants(model)]
    assert max(map(uses.count, uses)) >= 3
    result = quantize_rest(model, pixels.numpy())
    assert len(result.layers) == 3
    (binary,), (was,) = binary_nodes(result.model), binary_nodes(model)
    assert binary.constants["bias"].tobytes() == was.constants["bias"].tobytes()


def test_each_byte_is_counted(exported: Exported, quantized: Quantized) -> None:
    model = quantized("resnet_wide").model
    total = len(model.SerializeToString())
    sizes = size_by_kind(model, total)
    assert sum(sizes.values()) == total
    weights = 72 * 3 * 49 + 144 * 72 + 5 * 144
    assert sizes[SizeKind.INT8] == weights
    assert sizes[SizeKind.CONVOLUTION] == sizes[SizeKind.LINEAR] == 0
    before = exported("resnet_wide")
    assert sizes[SizeKind.PACKED] == size_by_kind(before, 0)[SizeKind.PACKED]
    assert total < len(before.SerializeToString()) - 2 * weights
    assert float_layers(model) == ()
    named = [(layer.name, layer.weights, layer.bytes) for layer in int8_layers(model)]
    assert named == [(layer.name, layer.weights, layer.weights) for layer in float_layers(before)]


def test_a_model_says_what_its_rest_is(exported: Exported, quantized: Quantized) -> None:
    assert rest_of(exported(FULL)) is Rest.FLOAT
    assert rest_of(quantized(FULL).model) is Rest.INT8


def test_a_network_without_float_layers_is_refused() -> None:
    network = nn.Sequential(binary_conv(3, 8, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    pixels = torch.randn(2, 3, 8, 8)
    model, _ = binary_model(network, pixels[:1])
    assert quantizable_layers(model) == ()
    with pytest.raises(DirnetError, match="--rest float"):
        quantize_rest(model, pixels.numpy())


def test_the_fixed_weights_alone_are_quantized() -> None:
    """A product of two activations has no weights."""

    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            flat = x.flatten(2)
            return (flat @ flat.transpose(1, 2)).unsqueeze(1)

    network = nn.Sequential(
        *stem(), binary_conv(16, 16, padding=1), Attention(), nn.Flatten(), nn.Linear(256, 5)
    )
    model, _ = binary_model(network.eval(), torch.randn(1, 3, 8, 8))
    assert [node.op_type for node in model.graph.node].count("MatMul") == 1
    # The stem is an operator of its own.
    assert quantizable_layers(model) == ("6/Gemm",)


def test_gates_are_quantized_too(quantized: Quantized) -> None:
    gates = ("5.reduce/Conv/MatMul", "5.expand/Conv/MatMul")
    assert quantized("squeeze_excite").layers == ("0/Conv", *gates, "9/Gemm")
