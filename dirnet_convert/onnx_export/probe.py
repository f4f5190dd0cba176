"""Looks into a model while it runs: what each binary layer of it read and wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional

from dirnet_convert.onnx_export.labels import AFFINE_KEY, OUTPUT_KEY, is_binary_layer, layer_call
from dirnet_convert.onnx_export.operators import OPERATORS, unpack_bits
from dirnet_convert.runtime.session import Kernels, load_session

if TYPE_CHECKING:
    import onnxruntime


@dataclass(frozen=True)
class BinaryNode:
    """One binary layer of a model: its module, its tensors by the operator's names, and its attributes."""

    name: str
    module: str
    call: int
    op_type: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    constants: dict[str, np.ndarray]
    attributes: dict[str, int | float | list[int]]
    threshold: np.ndarray
    affine_module: str
    output_module: str

    @property
    def is_convolution(self) -> bool:
        """Whether this is a convolution, not a matrix product."""
        return self.op_type != "BinaryGemm"


@dataclass(frozen=True)
class Ends:
    """The tensors of a model, inside it or at its border, that a PyTorch module takes and returns."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def ends_of(model: onnx.ModelProto) -> Ends:
    """Return the input and the outputs of ``model``."""
    graph = model.graph
    return Ends((graph.input[0].name,), tuple(value.name for value in graph.output))


@dataclass(frozen=True)
class LayerValues:
    """What a binary layer should yield for the bits that it read: dot * scale + bias, output, bits."""

    affine: Tensor
    output: Tensor
    bits: Tensor | None


def image_batches(model: onnx.ModelProto, images: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Split ``images`` (N, C, H, W) as ``model`` takes them: one by one where its batch is fixed to one."""
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    return images.detach().cpu().float().split(batch or batch_size)


def binary_nodes(model: onnx.ModelProto) -> list[BinaryNode]:
    """Return the binary layers of ``model`` in the order in which they run."""
    initializers = {t.name: t for t in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for node in model.graph.node:
        if not is_binary_layer(node.domain, node.op_type):
            continue
        spec = OPERATORS[node.op_type]
        inputs = dict(zip(spec.input_names(), node.input, strict=True))
        held = {
            k: onnx.numpy_helper.to_array(initializers[v]).copy()
            for k, v in inputs.items()
            if v in initializers
        }
        metadata = {entry.key: entry.value for entry in node.metadata_props}
        module, call = layer_call(node.name)
        threshold = onnx.numpy_helper.to_array(initializers[_threshold_name(producers, node.input[0])])
        found.append(
            BinaryNode(
                name=node.name,
                module=module,
                call=call,
                op_type=node.op_type,
                inputs=inputs,
                outputs=dict(zip(spec.output_names(), node.output, strict=True)),
                constants=held,
                attributes={a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
                threshold=threshold,
                affine_module=metadata.get(AFFINE_KEY, ""),
                output_module=metadata.get(OUTPUT_KEY, ""),
            )
        )
    return found


def _threshold_name(producers: dict[str, onnx.NodeProto], bits: str) -> str:
    node = producers[bits]
    if node.op_type == "BinaryMaxPool2d":
        return _threshold_name(producers, node.input[0])
    return dict(zip(OPERATORS[node.op_type].input_names(), node.input, strict=True))["threshold"]


def open_probe(
    model: onnx.ModelProto,
    nodes: list[BinaryNode],
    kernels: Kernels,
    threads: int | None,
    floats: tuple[str, ...] = (),
) -> onnxruntime.InferenceSession:
    """Open ``model`` so that its outputs are followed by ``floats`` and all that ``nodes`` read and write.

    Raises:
        DirnetError: as load_session does.
    """
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    known = {value.name for value in [*model.graph.output, *model.graph.input]}

    def expose(name: str, kind: int) -> None:
        if name not in known:
            known.add(name)
            exposed.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))

    for name in floats:
        expose(name, onnx.TensorProto.FLOAT)
    for node in nodes:
        tensors = {**node.inputs, **node.outputs}
        for name in (n for n in tensors if n not in node.constants):
            bits = name in ("B", "Bo")
            expose(tensors[name], onnx.TensorProto.UINT64 if bits else onnx.TensorProto.FLOAT)
    return load_session(exposed.SerializeToString(), kernels=kernels, threads=threads)


def run_probe(session: onnxruntime.InferenceSession, images: Tensor) -> dict[str, np.ndarray]:
    """Return every output of ``session`` by name for ``images`` (N, C, H, W)."""
    names = [entry.name for entry in session.get_outputs()]
    values = session.run(names, {session.get_inputs()[0].name: images.numpy()})
    return dict(zip(names, values, strict=True))


def signs_of(node: BinaryNode, bits: np.ndarray) -> Tensor:
    """Return bits as -1 and +1 in PyTorch's layout: (N, C, H, W) for a convolution, else (..., K)."""
    signs = torch.from_numpy(unpack_bits(bits, node.attributes["channels"]))
    return signs.permute(0, 3, 1, 2).contiguous() if node.is_convolution else signs


def expected_values(node: BinaryNode, weight: Tensor, values: dict[str, np.ndarray]) -> LayerValues:
    """Compute the layer from the bits that it read and PyTorch's ``weight`` of -1 and +1.

    The dot product is an integer below 2^24, hence exact in float32 in whatever order it is summed; what
    follows is one rounding per step, as the operators define it.
    """
    signs, held = signs_of(node, values[node.inputs["B"]]), node.constants
    a = node.attributes
    if node.is_convolution:
        top, left, bottom, right = a["pads"]
        padded = functional.pad(signs, (left, right, top, bottom))
        strides, dilations = tuple(a["strides"]), tuple(a["dilations"])
        dot = functional.conv2d(padded, weight, None, strides, 0, dilations, a["group"]).permute(0, 2, 3, 1)
    else:
        dot = functional.linear(signs, weight)
    affine = dot.round() * torch.from_numpy(held["scale"]) + torch.from_numpy(held["bias"])
    value = affine
    if "residual" in node.inputs:
        name = node.inputs["residual"]
        value = value + torch.from_numpy(held["residual"] if "residual" in held else values[name])
    if "slope" in held:
        value = torch.where(value < a["clip_min"], a["clip_min"], value)
        value = torch.where(value > a["clip_max"], a["clip_max"], value)
        value = torch.where(value < 0, torch.from_numpy(held["slope"]) * value, value)
    bits = value >= torch.from_numpy(held["threshold"]) if "threshold" in held else None
    return LayerValues(affine, value, bits)
