"""Operators with weights in NHWC: batch normalization and 1x1 convolution."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from dirnet_convert.onnx_export.ir_tools import constant, integer, ints, new_value
from dirnet_convert.onnx_export.passes.fold_batch_norm import affine_of_batch_norm
from dirnet_convert.onnx_export.passes.layout_rule import Rewriter, Rule, rank


def batch_norm_rule(node: ir.Node) -> Rule | None:
    affine = affine_of_batch_norm(node)
    if affine is None or rank(node.inputs[0]) != 4:
        return None
    x, y = node.inputs[0], node.outputs[0]

    def emit(to: Rewriter) -> None:
        scale, bias = (array.astype(np.float32) for array in affine)
        nhwc = to.nhwc(x)
        scaled = new_value(y, f"{y.name}_scaled", nhwc.shape)
        to.insert("Mul", [nhwc, to.constant(f"{node.name}/scale", scale)], {}, [scaled])
        to.insert("Add", [scaled, to.constant(f"{node.name}/bias", bias)], {}, [to.output(y)])

    return Rule((x,), (y,), emit)


def pointwise_conv_rule(node: ir.Node) -> Rule | None:
    """A 1x1 convolution is a matrix product over the channels, of every stride-th pixel."""
    weight = constant(node.inputs[1])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if (
        weight is None
        or weight.shape[2:] != (1, 1)
        or integer(node, "group", 1) != 1
        or any(ints(node, "pads", (0, 0, 0, 0)))
        or (bias is not None and constant(bias) is None)
        or rank(node.inputs[0]) != 4
    ):
        return None
    strides = ints(node, "strides", (1, 1))
    x, y = node.inputs[0], node.outputs[0]

    def emit(to: Rewriter) -> None:
        value = to.nhwc(x)
        output = to.output(y)
        if strides != (1, 1):
            pixels = ir.Shape([value.shape[0], *output.shape[1:3], value.shape[3]])
            taken = new_value(value, f"{y.name}_taken", pixels)
            ends = np.full(2, np.iinfo(np.int64).max)
            bounds = [np.zeros(2, np.int64), ends, np.array([1, 2], np.int64), np.array(strides, np.int64)]
            names = ("starts", "ends", "axes", "steps")
            inputs = [to.constant(f"{node.name}/{name}", b) for name, b in zip(names, bounds, strict=True)]
            to.insert("Slice", [value, *inputs], {}, [taken])
            value = taken
        matrix = to.constant(node.inputs[1].name, weight[:, :, 0, 0].T)
        product = output if bias is None else new_value(y, f"{y.name}_product", output.shape)
        to.insert("MatMul", [value, matrix], {}, [product])
        if bias is not None:
            to.insert("Add", [product, bias], {}, [output])

    return Rule((x,), (y,), emit)
