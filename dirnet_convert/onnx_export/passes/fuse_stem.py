"""The float convolution of the image becomes one operator with what follows it and the step to NHWC.

The operator computes v = convolution + bias; v = clip(v, clip_min, clip_max); v = v < 0 ? slope * v : v; then
the maximum of each window. Only chains in that order are taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from dirnet_convert.onnx_export.ir_tools import (
    TO_NHWC,
    add_constant,
    constant,
    integer,
    ints,
    is_op,
    is_transpose,
    make_node,
    new_value,
    remove_unused,
    replace_output,
    sole_consumer,
)
from dirnet_convert.onnx_export.operators import DOMAIN
from dirnet_convert.onnx_export.passes.fuse_epilogue import clip_range, per_channel, slope_of

# With more channels the runtime's own convolution is the better one.
_MOST_CHANNELS = 4
_ALONE = {"pool_kernel_shape": [1, 1], "pool_strides": [1, 1], "pool_pads": [0, 0, 0, 0]}


@dataclass
class _Chain:
    """What becomes one operator, whose output takes the place of ``last``, in NHWC where ``is_nhwc``."""

    bias: np.ndarray
    last: ir.Value
    is_nhwc: bool = False
    clip: tuple[float, float] | None = None
    slope: np.ndarray | None = None
    pool: dict[str, list[int]] | None = None

    def take(self, node: ir.Node) -> bool:
        """Take ``node``, the only reader of ``last``, where its place in the order allows; tell whether."""
        if is_transpose(node, TO_NHWC) and not self.is_nhwc:
            self.is_nhwc = True
            return True
        if self.pool is not None:
            return False
        if is_op(node, "MaxPool") and not self.is_nhwc:
            self.pool = _pool(node)
            return self.pool is not None
        return self._take_shift(node) or self._take_activation(node)

    def _take_shift(self, node: ir.Node) -> bool:
        if self.clip is not None or self.slope is not None or not is_op(node, "Add"):
            return False
        other = node.inputs[1] if node.inputs[0] is self.last else node.inputs[0]
        shift = per_channel(other, self.bias.size, self._channel_axis)
        if shift is None:
            return False
        # (convolution + bias) + shift = convolution + (bias + shift), up to rounding.
        self.bias = (self.bias.astype(np.float64) + shift).astype(np.float32)
        return True

    def _take_activation(self, node: ir.Node) -> bool:
        if self.slope is not None:
            return False
        bounds = clip_range(node, self.last)
        if bounds is not None and self.clip is None:
            self.clip = bounds
            return True
        slope = slope_of(node, self.last, self.bias.size, self._channel_axis)
        if slope is None or not np.isfinite(slope).all():
            return False
        self.slope = slope
        return True

    @property
    def _channel_axis(self) -> int:
        return -1 if self.is_nhwc else -3


def fuse_stem(model: ir.Model) -> int:
    """Fuse every convolution of an image whose result is wanted in NHWC; return how many there were."""
    fused = 0
    for conv in list(model.graph):
        if not _sees_an_image(conv):
            continue
        chain = _chain(conv)
        if chain is not None:
            _write(model.graph, conv, chain)
            fused += 1
    remove_unused(model)
    return fused


def _sees_an_image(conv: ir.Node) -> bool:
    if (
        not is_op(conv, "Conv")
        or integer(conv, "group", 1) != 1
        or set(ints(conv, "dilations", (1, 1))) != {1}
    ):
        return False
    weight = constant(conv.inputs[1])
    if weight is None or weight.ndim != 4 or weight.shape[1] > _MOST_CHANNELS:
        return False
    attribute = conv.attributes.get("auto_pad")
    return attribute is None or attribute.as_string() == "NOTSET"


def _chain(conv: ir.Node) -> _Chain | None:
    channels = constant(conv.inputs[1]).shape[0]
    bias = np.zeros(channels, np.float32)
    if len(conv.inputs) > 2 and conv.inputs[2] is not None:
        bias = constant(conv.inputs[2])
        if bias is None:
            return None
    chain = _Chain(bias, conv.outputs[0])
    while (reader := sole_consumer(chain.last)) is not None and chain.take(reader):
        chain.last = reader.outputs[0]
    return chain if chain.is_nhwc else None


def _pool(node: ir.Node) -> dict[str, list[int]] | None:
    """Return the attributes of a pooling that the operator can do."""
    window = ints(node, "kernel_shape", ())
    plain = len(window) == 2 and integer(node, "ceil_mode", 0) == 0 and len(node.outputs) == 1
    if not plain or set(ints(node, "dilations", (1, 1))) != {1}:
        return None
    pads = ints(node, "pads", (0, 0, 0, 0))
    if any(pad >= window[k % 2] for k, pad in enumerate(pads)):
        return None
    return {
        "pool_kernel_shape": list(window),
        "pool_strides": list(ints(node, "strides", (1, 1))),
        "pool_pads": list(pads),
    }


def _write(graph: ir.Graph, conv: ir.Node, chain: _Chain) -> None:
    weight = constant(conv.inputs[1])
    low, high = chain.clip or (-math.inf, math.inf)
    attributes = {
        "kernel_shape": list(weight.shape[2:]),
        "strides": list(ints(conv, "strides", (1, 1))),
        "pads": list(ints(conv, "pads", (0, 0, 0, 0))),
        **(chain.pool or _ALONE),
        "clip_min": low,
        "clip_max": high,
    }
    inputs = [*conv.inputs[:2], add_constant(graph, f"{conv.name}.bias", chain.bias)]
    op_type = "StemConv2d"
    if chain.slope is not None:
        op_type += "PRelu"
        inputs.append(add_constant(graph, f"{conv.name}.slope", chain.slope))
    output = new_value(chain.last, "stem", chain.last.shape)
    node = make_node(op_type, inputs, attributes, [output], like=conv, domain=DOMAIN)
    graph.insert_before(chain.last.producer(), node)
    replace_output(graph, chain.last, output)
