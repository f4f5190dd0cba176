"""One ONNX file of a network: the binarized one with its operators, or the float one as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common
from torch import Tensor, nn

from dirnet_convert.errors import DirnetError
from dirnet_convert.files import replacing
from dirnet_convert.onnx_export.labels import is_binary_layer, strip_metadata
from dirnet_convert.onnx_export.modules import export_copy
from dirnet_convert.onnx_export.operators import DOMAIN, OPERATORS, add_functions
from dirnet_convert.onnx_export.passes import remaining_transposes, run_passes
from dirnet_convert.onnx_export.passes.expand_prelu import expand_prelu
from dirnet_convert.onnx_export.passes.fold_batch_norm import fold_batch_norm
from dirnet_convert.onnx_export.passes.layout import RemainingTranspose
from dirnet_convert.onnx_export.passes.simplify_reshape import simplify_reshape
from dirnet_convert.onnx_export.trace import trace

_PRODUCER = "dirnet"
# A protobuf message cannot be longer; the nodes take little beside the weights.
_MOST_BYTES = (1 << 31) - (1 << 24)


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote: the file, what each rewrite changed, and what is left to know."""

    path: Path
    file_bytes: int
    changes: dict[str, int]
    binary_nodes: tuple[str, ...]
    transposes: tuple[RemainingTranspose, ...]


def binary_model(student: nn.Module, example: Tensor) -> tuple[onnx.ModelProto, dict[str, int]]:
    """Return ``student`` as an ONNX model for inputs like ``example`` (N, C, H, W), and what was rewritten.

    Raises:
        DirnetError: PyTorch cannot export the network.
    """
    model = trace(export_copy(student), example)
    changes = run_passes(model)
    return finish(model), changes


def float_model(network: nn.Module, example: Tensor) -> onnx.ModelProto:
    """Return ``network`` as an ONNX model of standard operators, batch normalization folded away.

    Raises:
        DirnetError: PyTorch cannot export the network.
    """
    model = trace(export_copy(network), example)
    run_float_passes(model)
    return finish(model)


def write_model(model: onnx.ModelProto, path: Path) -> int:
    """Write ``model`` whole or not at all; return the size in bytes.

    Raises:
        DirnetError: the folder cannot be written.
    """
    data = model.SerializeToString(deterministic=True)
    with replacing(path) as part:
        part.write_bytes(data)
    return len(data)


def export_onnx(student: nn.Module, example: Tensor, path: Path) -> ExportResult:
    """Write ``student`` to ``path`` for inputs like ``example`` (N, C, H, W), of any batch size.

    Raises:
        DirnetError: PyTorch cannot export the network, or the folder cannot be written.
    """
    model, changes = binary_model(student, example)
    return summarize(model, changes, path, write_model(model, path))


def summarize(model: onnx.ModelProto, changes: dict[str, int], path: Path, file_bytes: int) -> ExportResult:
    """Return what is to know of ``model``, which lies at ``path``."""
    names = tuple(node.name for node in model.graph.node if is_binary_layer(node.domain, node.op_type))
    return ExportResult(path, file_bytes, changes, names, remaining_transposes(ir.from_proto(model)))


def export_float_onnx(network: nn.Module, example: Tensor, path: Path) -> int:
    """Write the float ``network`` to ``path`` for inputs like ``example`` (N, C, H, W); return its bytes.

    Raises:
        DirnetError: PyTorch cannot export the network, or the folder cannot be written.
    """
    return write_model(float_model(network, example), path)


def run_float_passes(model: ir.Model) -> None:
    """Run the rewrites that a float network gets."""
    simplify_reshape(model)
    fold_batch_norm(model)
    # The rival of the binary network, in FP32 and INT8, has to be as fast as it can be.
    expand_prelu(model)


def finish(model: ir.Model) -> onnx.ModelProto:
    """Return ``model`` without what only the exporter needs, and with the bodies of its operators.

    Raises:
        DirnetError: the weights are too many for one file, or the graph is not valid ONNX.
    """
    _check_size(model)
    # Equal vectors, such as slopes of one, are stored once; packed weights are too long to be looked at.
    common.DeduplicateInitializersPass()(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    common.NameFixPass()(model)
    strip_metadata(model)
    model.producer_name, model.producer_version = _PRODUCER, None
    proto = ir.to_proto(model)
    proto.graph.name = _PRODUCER
    _keep_shapes_of_sums(proto)
    add_functions(proto)
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise DirnetError(f"The exported graph is not valid ONNX ({str(error).splitlines()[0]}).") from error
    return proto


def _keep_shapes_of_sums(model: onnx.ModelProto) -> None:
    """Leave in ``model`` the shapes of residuals and of what they are added into, and no others.

    ONNX Runtime lets a sum take its residual's memory where it knows that both are of one size; every other
    shape it finds out by itself.
    """
    wanted: set[str] = set()
    for node in model.graph.node:
        if node.domain == DOMAIN and node.op_type.startswith("BinaryConv2dAdd"):
            names = OPERATORS[node.op_type].input_names()
            wanted |= {node.input[names.index("residual")], node.output[0]}
    kept = [value for value in model.graph.value_info if value.name in wanted]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)


def _check_size(model: ir.Model) -> None:
    values = model.graph.initializers.values()
    size = sum(value.const_value.nbytes for value in values if value.const_value is not None)
    if size > _MOST_BYTES:
        raise DirnetError(
            f"The exported model's weights take {size / 1e9:.1f} GB and an ONNX file holds 2.1 GB at most; "
            "binarize more layers, or take a smaller network."
        )
