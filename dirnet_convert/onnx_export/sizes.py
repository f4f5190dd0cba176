"""What an ONNX file consists of, in bytes, and how the float and the binary file compare."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx

from dirnet_convert.onnx_export.operators import DOMAIN
from dirnet_convert.runtime.int8 import INT8_STEM


class SizeKind(enum.StrEnum):
    """What the bytes of a file are."""

    PACKED = "packed binary weights"
    CONVOLUTION = "float convolution weights"
    LINEAR = "float linear weights"
    INT8 = "INT8 weights"
    VECTORS = "scales, biases, thresholds, slopes"
    BATCH_NORM = "batch normalization"
    OTHER = "other constants"
    GRAPH = "graph, operator bodies, names"


@dataclass(frozen=True)
class SizeRow:
    """Bytes of one kind in the float file and in the binary file."""

    kind: SizeKind
    float_bytes: int
    binary_bytes: int


@dataclass(frozen=True)
class SizeReport:
    """Both files, kind by kind; the rows add up to the files."""

    rows: tuple[SizeRow, ...]
    float_file_bytes: int
    binary_file_bytes: int

    @property
    def ratio(self) -> float:
        """How many times smaller the binary file is."""
        return self.float_file_bytes / self.binary_file_bytes


@dataclass(frozen=True)
class RestLayer:
    """A layer that is not binary."""

    name: str
    operator: str
    weights: int
    bytes: int


def size_by_kind(model: onnx.ModelProto, file_bytes: int) -> dict[SizeKind, int]:
    """Return the bytes of each kind in ``model``; what is not a tensor's data counts as the graph."""
    kinds = _kinds(model)
    sizes: Counter[SizeKind] = Counter()
    for tensor in model.graph.initializer:
        sizes[kinds.get(tensor.name, SizeKind.OTHER)] += _data_bytes(tensor)
    sizes[SizeKind.GRAPH] = file_bytes - sum(sizes.values())
    return {kind: sizes[kind] for kind in SizeKind}


def compare_sizes(float_path: Path, binary_path: Path) -> SizeReport:
    """Return what both files consist of."""
    sizes, files = [], []
    for path in (float_path, binary_path):
        files.append(path.stat().st_size)
        # By itself, onnx takes a file for text or JSON where its name ends so.
        sizes.append(size_by_kind(onnx.load(path, format="protobuf"), files[-1]))
    rows = tuple(SizeRow(kind, sizes[0][kind], sizes[1][kind]) for kind in SizeKind)
    return SizeReport(rows, files[0], files[1])


def float_layers(model: onnx.ModelProto) -> tuple[RestLayer, ...]:
    """Return the layers of ``model`` with float weights, in the graph's order."""
    kinds = _kinds(model)
    weights = {t.name: t for t in model.graph.initializer}
    found = []
    for node in model.graph.node:
        for name in node.input:
            if name in weights and kinds.get(name) in (SizeKind.CONVOLUTION, SizeKind.LINEAR):
                size = _data_bytes(weights[name])
                found.append(RestLayer(layer_name(node), node.op_type, size // 4, size))
    return tuple(found)


def int8_layers(model: onnx.ModelProto) -> tuple[RestLayer, ...]:
    """Return the layers of ``model`` with INT8 weights, in the graph's order."""
    kinds = _kinds(model)
    weights = {t.name: t for t in model.graph.initializer}
    stored = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    found = []
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            continue
        for name in (stored.get(name, name) for name in node.input):
            if kinds.get(name) is SizeKind.INT8:
                size = _data_bytes(weights[name])
                found.append(RestLayer(layer_name(node), node.op_type, size, size))
    return tuple(found)


def layer_name(node: onnx.NodeProto) -> str:
    """Return the module path that ``node`` is named for."""
    return node.name.partition("/")[0]


def _data_bytes(tensor: onnx.TensorProto) -> int:
    return len(tensor.raw_data) if tensor.raw_data else onnx.numpy_helper.to_array(tensor).nbytes


def _kinds(model: onnx.ModelProto) -> dict[str, SizeKind]:
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    kinds: dict[str, SizeKind] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and types.get(node.input[0]) == onnx.TensorProto.INT8:
            kinds.setdefault(node.input[0], SizeKind.INT8)
        for index, name in enumerate(node.input):
            kinds.setdefault(name, _kind(node, index))
    return kinds


def _kind(node: onnx.NodeProto, index: int) -> SizeKind:
    if node.domain == DOMAIN and node.op_type.startswith(INT8_STEM):
        return SizeKind.INT8 if index == 1 else SizeKind.VECTORS
    if node.domain == DOMAIN and node.op_type.startswith("StemConv2d"):
        return SizeKind.CONVOLUTION if index == 1 else SizeKind.VECTORS
    if node.domain == DOMAIN:
        is_weight = index == 1 and node.op_type != "Binarize"
        return SizeKind.PACKED if is_weight else SizeKind.VECTORS
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return SizeKind.VECTORS
    if node.op_type in ("Conv", "ConvTranspose"):
        return SizeKind.CONVOLUTION if index == 1 else SizeKind.VECTORS
    if node.op_type == "Gemm":
        return SizeKind.LINEAR if index == 1 else SizeKind.VECTORS
    if node.op_type == "MatMul" and index == 0:
        return SizeKind.OTHER
    if node.op_type == "MatMul":
        # A 1x1 convolution inside the NHWC part is a matrix product named for the convolution.
        return SizeKind.CONVOLUTION if "/Conv" in node.name else SizeKind.LINEAR
    if node.op_type == "BatchNormalization" or "/BatchNormalization" in node.name:
        return SizeKind.BATCH_NORM
    if node.op_type == "PRelu" or ("/Conv/" in node.name and node.op_type == "Add"):
        return SizeKind.VECTORS
    return SizeKind.OTHER
