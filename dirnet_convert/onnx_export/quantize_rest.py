"""INT8 for the layers of an exported model that are not binary: stem, 1x1 shortcuts, last layer."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from dirnet_convert.errors import DirnetError
from dirnet_convert.onnx_export.operators import DOMAIN, add_functions
from dirnet_convert.onnx_export.quantize_stem import quantize_stems
from dirnet_convert.runtime.int8 import Int8Choice, quantize_static

_LAYERS = ("Conv", "Gemm", "MatMul")
# Behind a convolution these compute on bytes what they compute on floats, or vanish into its rounding.
_ON_BYTES = ("Relu", "Clip", "MaxPool", "Transpose")
# ONNX Runtime multiplies matrices of bytes to floats in one step; a convolution of bytes yields bytes.
_FLOAT_OUTPUTS = ("Gemm", "MatMul")


@dataclass(frozen=True)
class QuantizedRest:
    """A model with INT8 layers beside the binary ones, and the names of these nodes."""

    model: onnx.ModelProto
    layers: tuple[str, ...]


def quantize_rest(model: onnx.ModelProto, images: np.ndarray) -> QuantizedRest:
    """Return ``model`` with its float layers in INT8, calibrated on ``images`` (N, C, H, W) float32.

    Binary layers stay as they are, with all that they hold, and read and write floats where they did.

    Raises:
        DirnetError: no layer is left in float, or a binary layer would not stay as it is.
    """
    own = onnx.ModelProto()
    own.CopyFrom(model)
    stems = quantize_stems(own, images)
    if stems:
        add_functions(own)
    layers = quantizable_layers(own)
    if not stems and not layers:
        raise DirnetError("No layer of the network is left in float; export it with --rest float.")
    quantized = _quantized_layers(own, layers, images) if layers else own
    _finish(model, quantized)
    _check_kept(own, quantized)
    return QuantizedRest(quantized, (*stems, *layers))


def _quantized_layers(own: onnx.ModelProto, layers: tuple[str, ...], images: np.ndarray) -> onnx.ModelProto:
    """Return ``own`` with ``layers`` quantized by ONNX Runtime."""
    _own_constants(own, frozenset(layers))
    chosen = (*layers, *_followers(own, frozenset(layers)))
    choice = Int8Choice(nodes=chosen, operators=(*_LAYERS, *_ON_BYTES), float_outputs=_FLOAT_OUTPUTS)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(own.SerializeToString())
        quantize_static(source, target, images, choice)
        quantized = onnx.load(str(target))
    _restore_float_inputs(own, quantized, frozenset(chosen))
    return quantized


def quantizable_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the nodes of ``model`` that multiply by float weights, in the graph's order."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}

    def fits(node: onnx.NodeProto) -> bool:
        if node.domain not in ("", "ai.onnx") or node.op_type not in _LAYERS:
            return False
        # A product of more than two axes has no scale per channel in ONNX Runtime.
        weight = shapes.get(node.input[1])
        return (
            weight is not None
            and node.input[0] not in shapes
            and (node.op_type == "Conv" or len(weight) == 2)
        )

    return tuple(node.name for node in model.graph.node if fits(node))


def _own_constants(model: onnx.ModelProto, layers: frozenset[str]) -> None:
    """Give each layer weights and a bias of its own: equal vectors are stored once, and a scale is not."""
    uses = Counter(name for node in model.graph.node for name in node.input)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.name not in layers:
            continue
        for index, name in enumerate(node.input):
            if name in tensors and uses[name] > 1:
                copy = model.graph.initializer.add()
                copy.CopyFrom(tensors[name])
                copy.name = node.input[index] = f"{node.name}/input{index}"


def _followers(model: onnx.ModelProto, layers: frozenset[str]) -> list[str]:
    """Return the names of the nodes behind convolutions that go on with their bytes, one after the other."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output}
    found = []
    for node in model.graph.node:
        if node.op_type != "Conv" or node.name not in layers:
            continue
        following = node
        while True:
            name = following.output[0]
            next_nodes = readers.get(name, [])
            if name in outputs or len(next_nodes) != 1 or next_nodes[0].op_type not in _ON_BYTES:
                break
            (following,) = next_nodes
            found.append(following.name)
    return found


def _restore_float_inputs(before: onnx.ModelProto, after: onnx.ModelProto, quantized: frozenset[str]) -> None:
    """Let every node that is not quantized read the floats that it read, unless a quantized one wrote them.

    The quantizer rounds a tensor for all of its readers where one of them wants bytes.
    """
    inputs = {node.name: node.input for node in before.graph.node}
    written = {name for node in before.graph.node if node.name in quantized for name in node.output}
    for node in after.graph.node:
        if node.name in quantized or node.name not in inputs:
            continue
        for index, name in enumerate(inputs[node.name]):
            if name not in written:
                node.input[index] = name


def _finish(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Leave in ``after`` what an exported model has: the same shapes, our name, our operators."""
    del after.graph.value_info[:]
    written = {name for node in after.graph.node for name in node.output}
    after.graph.value_info.extend(value for value in before.graph.value_info if value.name in written)
    del after.metadata_props[:]
    after.metadata_props.extend(before.metadata_props)
    after.producer_name, after.producer_version = before.producer_name, before.producer_version
    after.graph.name = before.graph.name
    add_functions(after)
    try:
        onnx.checker.check_model(after)
    except onnx.checker.ValidationError as error:
        reason = str(error).splitlines()[0]
        raise DirnetError(
            f"The quantized graph is not valid ONNX ({reason}); export it with --rest float."
        ) from error


def _check_kept(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Compare the binary operators of both models, with all that they hold, bit by bit."""
    kept, found = _binary_operators(before), _binary_operators(after)
    wrong = [name for name in kept if found.get(name) != kept[name]]
    if wrong or len(kept) != len(found):
        raise DirnetError(
            f"Quantizing the rest would change {', '.join(wrong) or 'the number of binary layers'}; "
            "export it with --rest float."
        )


def _binary_operators(model: onnx.ModelProto) -> dict[str, tuple[bytes, ...]]:
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
            held = [onnx.numpy_helper.to_array(tensors[n]).tobytes() for n in node.input if n in tensors]
            found[node.name] = (node.op_type.encode(), *attributes, *held)
    return found
