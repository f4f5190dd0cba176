"""A model of one node: the smallest thing that runs, for examples, checks and measurements."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx

from dirnet_convert.onnx_export.operators.functions import add_functions
from dirnet_convert.onnx_export.operators.spec import BODY_OPSET, DOMAIN, AttributeValue
from dirnet_convert.onnx_export.operators.table import OPERATORS


def single_node_model(
    name: str,
    inputs: Mapping[str, np.ndarray],
    attributes: Mapping[str, AttributeValue],
    *,
    constants: Collection[str] = (),
    opset: int = BODY_OPSET,
) -> onnx.ModelProto:
    """Return a model whose graph is one ``ai.dirnet`` node and which carries that operator's body.

    ``inputs`` gives an example of each input, whose type and shape the model takes over; those named in
    ``constants`` become initializers. Output shapes are left open.

    Raises:
        KeyError: there is no operator of this name in ``ai.dirnet``.
    """
    spec = OPERATORS[name]
    node = onnx.helper.make_node(
        name, list(inputs), list(spec.output_names()), domain=DOMAIN, name="node", **attributes
    )
    graph = onnx.helper.make_graph(
        [node],
        name,
        [
            onnx.helper.make_tensor_value_info(
                key, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for key, value in inputs.items()
            if key not in constants
        ],
        [
            onnx.helper.make_tensor_value_info(
                tensor.name, tensor.element_type.value, [None] * _output_rank(inputs)
            )
            for tensor in spec.outputs
        ],
        [onnx.numpy_helper.from_array(inputs[key], key) for key in constants],
    )
    # IR version 10 is the newest that ONNX Runtime 1.19 reads.
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    add_functions(model)
    return model


def _output_rank(inputs: Mapping[str, np.ndarray]) -> int:
    # Every operator keeps the rank of its first input.
    return next(iter(inputs.values())).ndim
