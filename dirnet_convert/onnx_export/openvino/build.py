"""From a PyTorch network to an OpenVINO model, by way of its ONNX graph."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from torch import Tensor, nn

from dirnet_convert.onnx_export.modules import export_copy
from dirnet_convert.onnx_export.openvino.lower import (
    PLACEHOLDER,
    PLACEHOLDER_DOMAIN,
    LoweredLayer,
    lower,
)
from dirnet_convert.onnx_export.openvino.quantize import InputStep, quantize_layers
from dirnet_convert.onnx_export.passes.fold_batch_norm import fold_batch_norm
from dirnet_convert.onnx_export.passes.merge_slices import merge_slices
from dirnet_convert.onnx_export.passes.simplify_reshape import simplify_reshape
from dirnet_convert.onnx_export.trace import trace
from dirnet_convert.runtime.openvino import most_side_padding, require_openvino, runtime_sentence

if TYPE_CHECKING:
    import openvino
    from openvino.frontend import NodeContext


@dataclass(frozen=True)
class BuiltModel:
    """An OpenVINO model for one image, and its binary layers in the order in which they run.

    ``int8_layers`` counts the others that multiply bytes; ``held`` are the arrays whose memory its constants
    of bits share.
    """

    model: openvino.Model
    layers: tuple[LoweredLayer, ...]
    int8_layers: int
    held: tuple[np.ndarray, ...]


def build(student: nn.Module, example: Tensor, steps: Mapping[str, InputStep] | None = None) -> BuiltModel:
    """Return ``student`` as an OpenVINO model for one image like ``example`` (1, C, H, W).

    Layers that ``steps`` names multiply bytes; all others stay as they are.

    Raises:
        UsageError: openvino is not installed.
        DirnetError: PyTorch cannot export the network, or OpenVINO cannot read it.
    """
    openvino = require_openvino()
    graph = trace(export_copy(student), example)
    for rewrite in (simplify_reshape, merge_slices, fold_batch_norm):
        rewrite(graph)
    # Before the names of tensors are taken down.
    common.NameFixPass()(graph)
    layers = lower(graph, most_side_padding())
    int8_layers = quantize_layers(graph, steps or {})
    common.RemoveUnusedOpsetsPass()(graph)
    held: list[np.ndarray] = []
    core = openvino.Core()
    core.add_extension(_extension(held))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lowered.onnx"
        ir.save(graph, path)
        with runtime_sentence("OpenVINO cannot read this network"):
            model = core.read_model(path)
            model.reshape([1, *example.shape[1:]])
    # What has no name gets one from a counter of the whole process: one network would give several files.
    for number, node in enumerate(model.get_ordered_ops()):
        if node.get_friendly_name() == node.get_name() or node.get_type_name() == "Constant":
            node.set_friendly_name(f"{node.get_type_name()}_{number}")
    return BuiltModel(model, layers, int8_layers, tuple(held))


def _extension(held: list[np.ndarray]) -> object:
    """Return what turns a placeholder into FakeQuantize, whose two levels are bits, and BinaryConvolution."""
    import openvino
    import openvino.opset1 as opset1
    from openvino.frontend.onnx import ConversionExtension

    # 0 and 1 stand for -1 and +1. Only with these two does the plug-in hand bits on.
    levels = [np.array([value], np.float32) for value in (0, 1)]

    def convert(node: NodeContext) -> list[openvino.Output]:
        x, threshold, packed = (node.get_input(k) for k in range(3))
        # FakeQuantize chooses the upper level above its threshold, a binary layer at its threshold too.
        below = np.nextafter(threshold.get_node().data, np.float32(-np.inf))
        low, high = opset1.constant(below), opset1.constant(below)
        # A convolution that adds a residual in place and yields bits computes something else (2026.4.1). The
        # plug-in takes no FakeQuantize into a convolution whose bounds are one and the same node.
        bits = opset1.fake_quantize(x, low, low if node.get_attribute("apart") else high, *levels, 2)
        held.append(packed.get_node().data.copy())
        shape = openvino.Shape(node.get_attribute("weight_shape"))
        weights = openvino.op.Constant(openvino.Tensor(held[-1], shape, openvino.Type.u1))
        top, left, bottom, right = node.get_attribute("pads")
        strides, dilations = node.get_attribute("strides"), node.get_attribute("dilations")
        made = opset1.binary_convolution(
            bits, weights, strides, [top, left], [bottom, right], dilations, "xnor-popcount", 0.0
        )
        return made.outputs()

    return ConversionExtension(PLACEHOLDER, PLACEHOLDER_DOMAIN, convert)
