"""Exported networks compute what PyTorch computes, in stock ONNX Runtime and with the kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from export_networks import NETWORKS, build, images
from torch import nn

from dirnet_convert.binarize.layers import BinaryLayer
from dirnet_convert.errors import DirnetError
from dirnet_convert.onnx_export.exporter import export_float_onnx, export_onnx
from dirnet_convert.onnx_export.operators import DOMAIN, OPERATORS
from dirnet_convert.onnx_export.passes import remaining_transposes
from dirnet_convert.onnx_export.verify import verify_export
from dirnet_convert.runtime.session import Kernels, load_session

Exported = Callable[[str], onnx.ModelProto]
# Float layers are summed in another order, and batch normalization is rounded once instead of at each step.
RELATIVE_TOLERANCE = 2e-5


@pytest.mark.parametrize("kernels", list(Kernels))
@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_computes_what_pytorch_computes_for_any_batch(
    exported: Exported, name: str, kernels: Kernels
) -> None:
    session = load_session(exported(name).SerializeToString(), kernels=kernels)
    network = build(name)
    for batch in (1, 3):
        x = images(name, batch)
        with torch.no_grad():
            own = network(x).numpy()
        got = session.run(None, {"input": x.numpy()})[0]
        assert got.shape == own.shape
        np.testing.assert_allclose(got, own, rtol=0, atol=RELATIVE_TOLERANCE * np.abs(own).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_verifies(exported: Exported, name: str) -> None:
    report = verify_export(build(name), exported(name), images(name, 3))
    calls = 2 if name == "same_twice" else 1
    layers = [m for m in build(name).modules() if isinstance(m, BinaryLayer)]
    assert len(report.layers) == len(layers) + calls - 1
    assert all(engine.top1_agreement == 1.0 for engine in report.engines)


def test_the_shapes_of_sums_are_told_so_that_they_can_take_their_residuals_memory(exported: Exported) -> None:
    graph = exported("resnet_per_convolution").graph
    adding = [node for node in graph.node if node.op_type.startswith("BinaryConv2dAdd")]
    assert adding
    shapes = {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in graph.value_info
    }
    for node in adding:
        residual = node.input[OPERATORS[node.op_type].input_names().index("residual")]
        assert len(shapes[residual]) == 4 and shapes[residual] == shapes[node.output[0]]
    assert set(shapes) <= {name for node in graph.node for name in node.output}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_model_is_valid_and_every_node_carries_every_attribute(exported: Exported, name: str) -> None:
    model = exported(name)
    onnx.checker.check_model(model)
    used = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    assert used == {function.name for function in model.functions}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            spec = OPERATORS[node.op_type]
            assert {a.name for a in node.attribute} == {a.name for a in spec.attributes}
            assert len(node.input) == len(spec.inputs) and len(node.output) == len(spec.outputs)
    names = [node.name for node in model.graph.node]
    assert all(count == 1 for count in Counter(names).values())


def test_nodes_are_named_for_the_modules(exported: Exported) -> None:
    layers = [n for n, m in build("resnet_original").named_modules() if isinstance(m, BinaryLayer)]
    nodes = exported("resnet_original").graph.node
    assert [n.name for n in nodes if n.op_type.startswith("BinaryConv2d")] == layers


def test_the_second_call_of_a_layer_has_a_name_of_its_own(exported: Exported) -> None:
    names = [n.name for n in exported("same_twice").graph.node if n.op_type.startswith("BinaryConv2d")]
    assert names == ["3", "5", "5#2"]


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("resnet")])
def test_a_resnet_is_one_stem_and_convolutions_that_pass_bits(exported: Exported, name: str) -> None:
    model = exported(name)
    assert not remaining_transposes(ir.from_proto(model))
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["StemConv2dWithBits"] == 1
    assert not {"Conv", "MaxPool", "Binarize", "BatchNormalization", "Relu", "Clip", "PRelu"} & kinds.keys()


def test_max_pooling_moves_bits(exported: Exported) -> None:
    kinds = Counter(node.op_type for node in exported("vgg").graph.node)
    assert kinds["BinaryMaxPool2d"] == 2 and kinds["MaxPool"] == 0
    assert kinds["BinaryConv2dActToBits"] == 2


def test_a_float_depthwise_convolution_costs_two_transposes(exported: Exported) -> None:
    transposes = remaining_transposes(ir.from_proto(exported("mobilenet")))
    # Out and in again around each of two depthwise convolutions.
    assert len(transposes) == 4


@pytest.mark.parametrize("name", ["resnet_original", "resnet_rprelu", "resnet_option_a"])
def test_onnx_runtime_adds_no_layout_change_to_the_binary_part(
    exported: Exported, tmp_path: Path, name: str
) -> None:
    optimized = tmp_path / "optimized.onnx"
    model = exported(name).SerializeToString()
    load_session(model, kernels=Kernels.DIRNET, optimized_model=optimized)
    nodes = list(onnx.load(optimized).graph.node)
    assert not [node.name for node in nodes if node.op_type in ("Transpose", "ReorderInput", "ReorderOutput")]


def test_the_file_is_lean(exported: Exported) -> None:
    model = exported("resnet_original")
    assert not model.metadata_props and not model.graph.doc_string
    for node in model.graph.node:
        assert not node.doc_string
        assert {entry.key for entry in node.metadata_props} <= {"dirnet.affine", "dirnet.output"}
    # What ONNX Runtime needs to know to write a sum over its residual, and no more.
    named = {value.name for value in model.graph.value_info}
    adding = [node for node in model.graph.node if "Add" in node.op_type and node.domain == DOMAIN]
    assert adding and named == {node.input[5] for node in adding} | {node.output[0] for node in adding}


def test_export_writes_the_file_and_says_what_it_did(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.onnx"
    result = export_onnx(build("groups"), images("groups")[:1], path)
    assert path.stat().st_size == result.file_bytes
    assert result.changes["fold_batch_norm"] == 2 and result.binary_nodes == ("3", "5")
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]


def test_export_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    network = build("groups").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export_onnx(network, images("groups")[:1], tmp_path / "model.onnx")
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_the_float_network_has_no_batch_normalization_left(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()).eval()
    export_float_onnx(network, torch.zeros(1, 3, 5, 5), tmp_path / "float.onnx")
    model = onnx.load(tmp_path / "float.onnx")
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu", "Reshape"]
    x = torch.randn(2, 3, 5, 5)
    session = load_session(tmp_path / "float.onnx", kernels=Kernels.STOCK)
    np.testing.assert_allclose(
        session.run(None, {"input": x.numpy()})[0], network(x).detach().numpy(), atol=1e-6
    )


def test_the_float_network_is_not_slowed_by_the_runtimes_prelu(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Flatten()).eval()
    export_float_onnx(network, torch.zeros(1, 3, 5, 5), tmp_path / "float.onnx")
    model = onnx.load(tmp_path / "float.onnx")
    assert [node.op_type for node in model.graph.node] == ["Conv", "Mul", "Max", "Reshape"]
    x = torch.randn(2, 3, 5, 5)
    session = load_session(tmp_path / "float.onnx", kernels=Kernels.STOCK)
    np.testing.assert_allclose(
        session.run(None, {"input": x.numpy()})[0], network(x).detach().numpy(), atol=1e-6
    )


class _OneByOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = build("groups")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.body(image) for image in x.split(1)])


def test_a_network_that_fixes_its_batch_is_exported_for_one_image(tmp_path: Path) -> None:
    network, x = _OneByOne().eval(), images("groups", 3)
    path = tmp_path / "model.onnx"
    export_onnx(network, x[:1], path)
    assert load_session(path).get_inputs()[0].shape[0] == 1
    assert verify_export(network, path, x).images == 3


class _Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class _Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


@pytest.mark.parametrize(("network", "words"), [(_Branching(), "cannot export"), (_Pair(), "returns tuple")])
def test_what_cannot_be_exported_is_said_in_a_sentence(
    network: nn.Module, words: str, tmp_path: Path
) -> None:
    with pytest.raises(DirnetError, match=words) as caught:
        export_onnx(network, torch.zeros(1, 3, 4, 4), tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_weights_that_no_file_holds_are_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dirnet_convert.onnx_export.exporter._MOST_BYTES", 1000)
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 3))
    with pytest.raises(DirnetError, match=r"weights take .* GB and an ONNX file holds 2\.1 GB at most"):
        export_float_onnx(network, torch.zeros(1, 3, 8, 8), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
