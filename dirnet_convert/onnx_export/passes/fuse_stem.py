"""The float convolution of the image becomes one operator with its clip, pooling and step to NHWC."""

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
from dirnet_convert.onnx_export.passes.fuse_epilogue import clip_range

# With more channels the runtime's own convolution is the better one.
_MOST_CHANNELS = 4
_ALONE = {"pool_kernel_shape": [1, 1], "pool_strides": [1, 1], "pool_pads": [0, 0, 0, 0]}


@dataclass(frozen=True)
class _Chain:
    """What becomes one operator: ``last`` is the transpose to NHWC."""

    clip: tuple[float, float]
    pool: dict[str, list[int]]
    last: ir.Node


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
    clip, pool = None, None
    value = conv.outputs[0]
    while (reader := sole_consumer(value)) is not None:
        if is_transpose(reader, TO_NHWC):
            return _Chain(clip or (-math.inf, math.inf), pool or _ALONE, reader)
        bounds = clip_range(reader, value)
        if bounds is not None and clip is None and pool is None:
            clip = bounds
        elif is_op(reader, "MaxPool") and pool is None:
            pool = _pool(reader)
            if pool is None:
                return None
        else:
            return None
        value = reader.outputs[0]
    return None


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
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    if bias is None:
        bias = add_constant(graph, f"{conv.name}.bias", np.zeros(weight.shape[0], np.float32))
    attributes = {
        "kernel_shape": list(weight.shape[2:]),
        "strides": list(ints(conv, "strides", (1, 1))),
        "pads": list(ints(conv, "pads", (0, 0, 0, 0))),
        **chain.pool,
        "clip_min": chain.clip[0],
        "clip_max": chain.clip[1],
    }
    old = chain.last.outputs[0]
    output = new_value(old, "stem", old.shape)
    inputs = [*conv.inputs[:2], bias]
    node = make_node("StemConv2d", inputs, attributes, [output], like=conv, domain=DOMAIN)
    graph.insert_before(chain.last, node)
    replace_output(graph, old, output)
