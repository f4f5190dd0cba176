"""How each operator that can run in NHWC does so."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from dirnet_convert.onnx_export.ir_tools import (
    TO_NHWC,
    constant,
    dims,
    integer,
    new_value,
)
from dirnet_convert.onnx_export.passes.layout_pooling import pooling_rule
from dirnet_convert.onnx_export.passes.layout_rule import Rewriter, Rule, attributes_of, rank, take_over
from dirnet_convert.onnx_export.passes.layout_weights import batch_norm_rule, pointwise_conv_rule

# Where the axes of (N, C, H, W) are in (N, H, W, C).
_NHWC_AXIS = (0, 3, 1, 2)

_ELEMENTWISE = frozenset(
    [
        "Abs",
        "Add",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "Div",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "Greater",
        "GreaterOrEqual",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "Max",
        "Min",
        "Mish",
        "Mul",
        "Neg",
        "Not",
        "PRelu",
        "Pow",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Sin",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
        "Sum",
        "Tanh",
        "ThresholdedRelu",
        "Where",
    ]
)
_REDUCTIONS = frozenset(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare"])


def find_rule(node: ir.Node) -> Rule | None:
    """Return how ``node`` runs in NHWC, or None where it cannot."""
    if node.domain != "" or any(value is not None and value.shape is None for value in node.inputs):
        return None
    op_type = node.op_type
    if op_type in _ELEMENTWISE:
        return _elementwise(node)
    if op_type in _REDUCTIONS or op_type in ("GlobalAveragePool", "GlobalMaxPool"):
        return _reduction(node)
    rules = {
        "BatchNormalization": batch_norm_rule,
        "Concat": _concat,
        "Conv": pointwise_conv_rule,
        "Flatten": _one_pixel,
        "Pad": _pad,
        "Reshape": _one_pixel,
        "Slice": _slice,
        "Split": _split,
        "Squeeze": _one_pixel,
        "MaxPool": pooling_rule,
        "AveragePool": pooling_rule,
    }
    return rules[op_type](node) if op_type in rules else None


def _spread_constant(value: ir.Value) -> np.ndarray | None:
    """Return a constant that broadcasts against (N, C, H, W) so that it does against (N, H, W, C)."""
    array = constant(value)
    if array is None or array.ndim > 4:
        return None
    if array.size == 1 and array.ndim <= 1:
        return array
    return array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(TO_NHWC)


def _elementwise(node: ir.Node) -> Rule | None:
    output = node.outputs[0]
    if rank(output) != 4:
        return None
    moved, constants = [], {}
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        array = _spread_constant(value)
        if array is not None:
            constants[index] = array
        elif rank(value) == 4:
            moved.append(value)
        elif rank(value) != 0:
            return None
    if not moved:
        return None

    def emit(to: Rewriter) -> None:
        inputs = []
        for index, value in enumerate(node.inputs):
            if index in constants:
                array = constants[index]
                same = array.shape == constant(value).shape and array.size == 1
                inputs.append(value if same else to.constant(f"{value.name}_nhwc", array))
            else:
                inputs.append(to.nhwc(value) if rank(value) == 4 else value)
        to.insert(node.op_type, inputs, attributes_of(node), [to.output(output)])

    return Rule(tuple(moved), (output,), emit)


def _concat(node: ir.Node) -> Rule | None:
    if any(rank(value) != 4 or constant(value) is not None for value in node.inputs):
        return None
    axis = _NHWC_AXIS[integer(node, "axis", 1)]

    def emit(to: Rewriter) -> None:
        to.insert(
            "Concat", [to.nhwc(value) for value in node.inputs], {"axis": axis}, [to.output(node.outputs[0])]
        )

    return Rule(tuple(node.inputs), (node.outputs[0],), emit)


def _split(node: ir.Node) -> Rule | None:
    if rank(node.inputs[0]) != 4:
        return None
    attributes = attributes_of(node) | {"axis": _NHWC_AXIS[integer(node, "axis", 0)]}

    def emit(to: Rewriter) -> None:
        outputs = [to.output(value) for value in node.outputs]
        to.insert("Split", [to.nhwc(node.inputs[0]), *node.inputs[1:]], attributes, outputs)

    return Rule((node.inputs[0],), tuple(node.outputs), emit)


def _axes(value: ir.Value | None, count: int) -> list[int] | None:
    """Return constant axes, or the first ``count`` ones where there is no such input."""
    array = constant(value)
    if value is None:
        return list(range(count))
    return None if array is None else [int(axis) % 4 for axis in array.reshape(-1)]


def _slice(node: ir.Node) -> Rule | None:
    inputs = [*node.inputs, *[None] * (5 - len(node.inputs))]
    starts = constant(inputs[1])
    if rank(inputs[0]) != 4 or starts is None:
        return None
    axes = _axes(inputs[3], starts.size)
    if axes is None:
        return None

    def emit(to: Rewriter) -> None:
        moved = np.array([_NHWC_AXIS[axis] for axis in axes], np.int64)
        names = [to.nhwc(inputs[0]), inputs[1], inputs[2], to.constant(f"{node.name}/axes", moved)]
        if inputs[4] is not None:
            names.append(inputs[4])
        to.insert("Slice", names, {}, [to.output(node.outputs[0])])

    return Rule((inputs[0],), (node.outputs[0],), emit)


def _pad(node: ir.Node) -> Rule | None:
    inputs = [*node.inputs, *[None] * (4 - len(node.inputs))]
    pads = constant(inputs[1])
    if rank(inputs[0]) != 4 or pads is None:
        return None
    axes = _axes(inputs[3], 4)
    if axes is None:
        return None

    def emit(to: Rewriter) -> None:
        moved = np.zeros(8, np.int64)
        for index, axis in enumerate(axes):
            moved[_NHWC_AXIS[axis]] = pads[index]
            moved[_NHWC_AXIS[axis] + 4] = pads[index + len(axes)]
        names = [to.nhwc(inputs[0]), to.constant(f"{node.name}/pads", moved)]
        if inputs[2] is not None:
            names.append(inputs[2])
        to.insert("Pad", names, attributes_of(node), [to.output(node.outputs[0])])

    return Rule((inputs[0],), (node.outputs[0],), emit)


def _reduction(node: ir.Node) -> Rule | None:
    x, y = node.inputs[0], node.outputs[0]
    if rank(x) != 4:
        return None
    if node.op_type.startswith("Global"):
        op_type, axes, keep = (
            {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}[node.op_type],
            [2, 3],
            1,
        )
    else:
        axes_value = node.inputs[1] if len(node.inputs) > 1 else None
        found = _axes(axes_value, 4)
        if found is None or integer(node, "noop_with_empty_axes", 0):
            return None
        op_type, axes, keep = node.op_type, found, integer(node, "keepdims", 1)
    # Without the reduced axes the others must be in the same order in both layouts.
    left = [_NHWC_AXIS[axis] for axis in range(4) if axis not in axes]
    if not keep and left != sorted(left):
        return None

    def emit(to: Rewriter) -> None:
        moved = np.array(sorted(_NHWC_AXIS[axis] for axis in axes), np.int64)
        inputs = [to.nhwc(x), to.constant(f"{node.name}/axes", moved)]
        output = to.output(y) if keep else new_value(y, f"{y.name}_reduced", y.shape)
        to.insert(op_type, inputs, {"keepdims": keep}, [output])
        if not keep:
            take_over(to, y, output)

    return Rule((x,), (y,) if keep else (), emit)


def _one_pixel(node: ir.Node) -> Rule | None:
    """(N, C, 1, 1) and (N, 1, 1, C) hold the same numbers in the same order: reshaping needs no transpose."""
    x, y = node.inputs[0], node.outputs[0]
    shape = dims(x)
    if shape is None or len(shape) != 4 or shape[2:] != (1, 1) or rank(y) == 4:
        return None
    rest = list(node.inputs[1:])
    if node.op_type == "Flatten" and integer(node, "axis", 1) != 1:
        return None
    if node.op_type == "Reshape":
        target = constant(rest[0])
        # A zero copies the axis at its place, and only the first is at the same place in both.
        if target is None or (not integer(node, "allowzero", 0) and np.any(target[1:] == 0)):
            return None
    if node.op_type == "Squeeze":
        axes = None if not rest else _axes(rest[0], 0)
        if axes is None or sorted(axes) != [2, 3]:
            return None

    def emit(to: Rewriter) -> None:
        inputs = [to.nhwc(x), *rest]
        if node.op_type == "Squeeze":
            inputs[1] = to.constant(f"{node.name}/axes", np.array([1, 2], np.int64))
        output = new_value(y, f"{y.name}_flat", y.shape)
        to.insert(node.op_type, inputs, attributes_of(node), [output])
        take_over(to, y, output)

    return Rule((x,), (), emit)
