"""What one operator is: its signature, its meaning in numpy and its meaning in standard operators."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

DOMAIN = "ai.dirnet"
OPERATOR_VERSION = 1
# The opset of a body that stands alone; in a model the bodies take the model's own.
BODY_OPSET = 20
# BitwiseAnd, BitwiseOr and Split's num_outputs came with opset 18.
OLDEST_BODY_OPSET = 18


class AttributeKind(enum.Enum):
    """The kinds of attribute that the operators use, as ONNX's attribute types."""

    INT = onnx.AttributeProto.INT
    INTS = onnx.AttributeProto.INTS
    FLOAT = onnx.AttributeProto.FLOAT


class ElementType(enum.Enum):
    """The element types that the operators use, as ONNX's tensor types."""

    FLOAT32 = onnx.TensorProto.FLOAT
    INT8 = onnx.TensorProto.INT8
    UINT64 = onnx.TensorProto.UINT64


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: its name, element type and shape in words, for example (N, H, W, C)."""

    name: str
    element_type: ElementType
    shape: str


@dataclass(frozen=True)
class AttributeSpec:
    """One attribute, which every node must carry: ONNX Runtime hands no default of a function to a kernel."""

    name: str
    kind: AttributeKind
    length: int | None = None


AttributeValue = int | float | list[int]
Reference = Callable[[Mapping[str, np.ndarray], Mapping[str, AttributeValue]], tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class OperatorSpec:
    """One operator of the domain ``ai.dirnet``; its name and its meaning never change.

    ``reference`` takes the inputs and the attributes by name and returns the outputs in order;
    ``build_body`` returns the nodes of the model-local function.
    """

    name: str
    summary: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    attributes: tuple[AttributeSpec, ...]
    reference: Reference
    build_body: Callable[[], list[onnx.NodeProto]]

    def input_names(self) -> tuple[str, ...]:
        """Return the names of the inputs in order."""
        return tuple(tensor.name for tensor in self.inputs)

    def output_names(self) -> tuple[str, ...]:
        """Return the names of the outputs in order."""
        return tuple(tensor.name for tensor in self.outputs)
