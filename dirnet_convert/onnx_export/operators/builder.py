"""Writes the nodes of a model-local function, one after the other."""

from __future__ import annotations

import numpy as np
import onnx

from dirnet_convert.onnx_export.operators.spec import AttributeKind

_REFERENCE_KINDS = {
    "group": AttributeKind.INT,
    "kernel_shape": AttributeKind.INTS,
    "strides": AttributeKind.INTS,
    "pads": AttributeKind.INTS,
    "dilations": AttributeKind.INTS,
}


def _reference(name: str, refers_to: str, kind: AttributeKind) -> onnx.AttributeProto:
    return onnx.AttributeProto(name=name, ref_attr_name=refers_to, type=kind.value)


class BodyBuilder:
    """Collects nodes and names their results ``v0``, ``v1``, ... in the order in which they are computed."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._count = 0
        self._constants: dict[bytes, str] = {}

    def _fresh_name(self) -> str:
        name = f"v{self._count}"
        self._count += 1
        return name

    def add(
        self,
        op_type: str,
        *inputs: str,
        output: str | None = None,
        references: tuple[str, ...] = (),
        prefix: str = "",
        **attributes: object,
    ) -> str:
        """Append a node with one output and return the output's name.

        ``references`` names attributes that are taken from the function's attributes of the same name, which
        there begins with ``prefix``.
        """
        name = output or self._fresh_name()
        node = onnx.helper.make_node(op_type, list(inputs), [name], **attributes)
        node.attribute.extend(_reference(item, prefix + item, _REFERENCE_KINDS[item]) for item in references)
        self.nodes.append(node)
        return name

    def add_many(self, op_type: str, output_count: int, *inputs: str, **attributes: object) -> list[str]:
        """Append a node with several outputs and return their names."""
        names = [self._fresh_name() for _ in range(output_count)]
        self.nodes.append(onnx.helper.make_node(op_type, list(inputs), names, **attributes))
        return names

    def constant(self, value: np.ndarray) -> str:
        """Append a constant, or find it where an equal one is there: each costs bytes in every file."""
        tensor = onnx.numpy_helper.from_array(value)
        key = tensor.SerializeToString(deterministic=True)
        if key not in self._constants:
            self._constants[key] = self.add("Constant", value=tensor)
        return self._constants[key]

    def int64(self, values: list[int]) -> str:
        """Append a constant list of 64-bit integers, for shapes and axes."""
        return self.constant(np.array(values, np.int64))

    def attribute_int(self, name: str) -> str:
        """Append the function's integer attribute as a tensor of shape (1)."""
        value = self._attribute("value_int", name, AttributeKind.INT)
        return self.add("Reshape", value, self.int64([1]))

    def attribute_ints(self, name: str) -> str:
        """Append the function's list of integers as a tensor."""
        return self._attribute("value_ints", name, AttributeKind.INTS)

    def attribute_float(self, name: str) -> str:
        """Append the function's float attribute as a scalar tensor."""
        return self._attribute("value_float", name, AttributeKind.FLOAT)

    def _attribute(self, field: str, name: str, kind: AttributeKind) -> str:
        result = self._fresh_name()
        node = onnx.helper.make_node("Constant", [], [result])
        node.attribute.append(_reference(field, name, kind))
        self.nodes.append(node)
        return result
