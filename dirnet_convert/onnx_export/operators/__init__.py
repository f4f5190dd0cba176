"""The operators of the domain ``ai.dirnet``: signatures, meaning in numpy, bodies of standard operators."""

from __future__ import annotations

from dirnet_convert.onnx_export.operators.bits import pack_bits, unpack_bits, word_count
from dirnet_convert.onnx_export.operators.functions import add_functions, function_proto, used_operators
from dirnet_convert.onnx_export.operators.single import single_node_model
from dirnet_convert.onnx_export.operators.spec import (
    BODY_OPSET,
    DOMAIN,
    OPERATOR_VERSION,
    AttributeKind,
    AttributeSpec,
    ElementType,
    OperatorSpec,
    TensorSpec,
)
from dirnet_convert.onnx_export.operators.table import OPERATORS

__all__ = [
    "BODY_OPSET",
    "DOMAIN",
    "OPERATORS",
    "OPERATOR_VERSION",
    "AttributeKind",
    "AttributeSpec",
    "ElementType",
    "OperatorSpec",
    "TensorSpec",
    "add_functions",
    "function_proto",
    "pack_bits",
    "single_node_model",
    "unpack_bits",
    "used_operators",
    "word_count",
]
