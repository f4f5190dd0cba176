"""Standard operators appended to a graph: what a detector does between its layers and after them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from torchvision.models.detection._utils import BoxCoder

from dirnet_convert.onnx_export.ir_tools import add_constant

# A score that no threshold lets through; scores are probabilities.
_NEVER = -1.0


class Steps:
    """Appends nodes to ``graph``, all named for ``part``."""

    def __init__(self, graph: ir.Graph, part: str) -> None:
        self._graph, self._part = graph, part
        self._count = 0

    def op(self, op_type: str, *inputs: ir.Value, name: str = "", **attributes: object) -> ir.Value:
        """Append a node with one output, named ``name`` if given, and return the output."""
        return self.ops(op_type, 1, *inputs, name=name, **attributes)[0]

    def ops(
        self, op_type: str, outputs: int, *inputs: ir.Value, name: str = "", **attributes: object
    ) -> tuple[ir.Value, ...]:
        """Append a node and return its outputs."""
        self._count += 1
        own = f"{self._part}/{op_type}#{self._count}"
        values = [ir.Value(name=name or f"{own}/{k}") for k in range(outputs)]
        made = ir.convenience.convert_attributes(attributes)
        self._graph.append(ir.Node("", op_type, inputs, made, outputs=values, name=own))
        return tuple(values)

    def constant(self, value: object, dtype: type = np.float32) -> ir.Value:
        """Return ``value`` as a constant of the graph."""
        return add_constant(self._graph, f"{self._part}/constant", np.asarray(value, dtype))

    def ints(self, *values: int) -> ir.Value:
        """Return a constant list of 64-bit integers, for shapes and axes."""
        return self.constant(values, np.int64)

    def last(self, value: ir.Value, start: int, stop: int) -> ir.Value:
        """Return the entries ``start`` to ``stop`` of the last axis."""
        return self.op("Slice", value, self.ints(start), self.ints(stop), self.ints(-1))

    def joined(self, op_type: str, pairs: ir.Value) -> ir.Value:
        """Return ``op_type`` of the two entries of the last axis, (..., 2) to (...).

        A reduction would do, but ONNX Runtime's give an empty tensor one axis too many.
        """
        both = self.op(op_type, self.last(pairs, 0, 1), self.last(pairs, 1, 2))
        return self.op("Squeeze", both, self.ints(-1))

    def count(self, values: ir.Value, most: int) -> ir.Value:
        """Return the length of ``values`` (M), but at most ``most``, as a tensor of shape (1)."""
        return self.op("Min", self.op("Shape", values), self.ints(most))

    def best(self, scores: ir.Value, most: int) -> ir.Value:
        """Return the positions of the up to ``most`` highest ``scores`` (M), highest first."""
        return self.ops("TopK", 2, scores, self.count(scores, most), axis=0)[1]


@dataclass(frozen=True)
class Boxes:
    """Boxes (..., 4) as their centres (..., 2) and sizes (..., 2)."""

    centre: ir.Value
    size: ir.Value


def constant_boxes(steps: Steps, boxes: np.ndarray) -> Boxes:
    """Return anchors (A, 4) xyxy, computed once and for all."""
    size = boxes[:, 2:] - boxes[:, :2]
    return Boxes(steps.constant(boxes[:, :2] + np.float32(0.5) * size), steps.constant(size))


def boxes_of(steps: Steps, boxes: ir.Value) -> Boxes:
    """Return boxes (..., 4) xyxy as centres and sizes."""
    low = steps.last(boxes, 0, 2)
    size = steps.op("Sub", steps.last(boxes, 2, 4), low)
    return Boxes(steps.op("Add", low, steps.op("Mul", size, steps.constant(0.5))), size)


def picked(steps: Steps, boxes: Boxes, positions: ir.Value) -> Boxes:
    """Return the ``boxes`` (A, 4) at ``positions``."""
    return Boxes(
        steps.op("Gather", boxes.centre, positions, axis=0), steps.op("Gather", boxes.size, positions, axis=0)
    )


def decode(steps: Steps, codes: ir.Value, boxes: Boxes, coder: BoxCoder, height: int, width: int) -> ir.Value:
    """Return the boxes (..., 4) xyxy that ``codes`` (..., 4) make of ``boxes``, cut at the image's border.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, equation 2.
    """
    scaled = steps.op("Div", codes, steps.constant(coder.weights))
    shift = steps.op("Mul", steps.last(scaled, 0, 2), boxes.size)
    centre = steps.op("Add", shift, boxes.centre)
    growth = steps.op("Min", steps.last(scaled, 2, 4), steps.constant(coder.bbox_xform_clip))
    half = steps.op("Mul", steps.op("Mul", steps.op("Exp", growth), boxes.size), steps.constant(0.5))
    found = steps.op("Concat", steps.op("Sub", centre, half), steps.op("Add", centre, half), axis=-1)
    above = steps.op("Max", found, steps.constant(0))
    return steps.op("Min", above, steps.constant([width, height, width, height]))


def without_small(steps: Steps, scores: ir.Value, boxes: ir.Value, edge: float) -> ir.Value:
    """Return ``scores`` (...), hopeless where an edge of a box (..., 4) is below ``edge``."""
    size = steps.op("Sub", steps.last(boxes, 2, 4), steps.last(boxes, 0, 2))
    shortest = steps.joined("Min", size)
    large = steps.op("GreaterOrEqual", shortest, steps.constant(edge))
    return steps.op("Where", large, scores, steps.constant(_NEVER))


@dataclass(frozen=True)
class Found:
    """Boxes (M, 4), the group of each, and its score."""

    boxes: ir.Value
    groups: ir.Value
    scores: ir.Value


def suppress(
    steps: Steps,
    boxes: ir.Value,
    scores: ir.Value,
    *,
    iou: float,
    above: float,
    most: int,
    names: tuple[str, str] = ("", ""),
) -> Found:
    """Return what is left of boxes (G, n, 4) with scores (G, n) > ``above``, each group for itself.

    Of two boxes whose intersection over union is more than ``iou`` the one with the lower score falls.
    ``names`` are those of the boxes and scores that are left.
    """
    chosen = steps.op(
        "NonMaxSuppression",
        boxes,
        steps.op("Unsqueeze", scores, steps.ints(1)),
        steps.ints(most),
        steps.constant([iou]),
        steps.constant([above]),
    )
    # (group, 0, position) of each box that is left.
    places = steps.op("Gather", chosen, steps.ints(0, 2), axis=1)
    return Found(
        boxes=steps.op("GatherND", boxes, places, name=names[0]),
        groups=steps.op("Squeeze", steps.op("Gather", chosen, steps.ints(0), axis=1), steps.ints(1)),
        scores=steps.op("GatherND", scores, places, name=names[1]),
    )
