"""Model-local functions: the bodies of the operators that a model uses, carried by the model itself."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from dirnet_convert.onnx_export.operators.spec import (
    BODY_OPSET,
    DOMAIN,
    OLDEST_BODY_OPSET,
    OPERATOR_VERSION,
)
from dirnet_convert.onnx_export.operators.table import OPERATORS

_STANDARD = ("", "ai.onnx")


def function_proto(name: str, opset: int = BODY_OPSET) -> onnx.FunctionProto:
    """Return the model-local function of one operator, made of standard operators of ``opset`` alone.

    Raises:
        KeyError: there is no operator of this name in ``ai.dirnet``.
        ValueError: ``opset`` is older than the standard operators of the bodies.
    """
    if opset < OLDEST_BODY_OPSET:
        raise ValueError(f"the operator bodies need opset {OLDEST_BODY_OPSET} or newer, got {opset}")
    spec = OPERATORS[name]
    return onnx.helper.make_function(
        DOMAIN,
        spec.name,
        list(spec.input_names()),
        list(spec.output_names()),
        spec.build_body(),
        [onnx.helper.make_opsetid("", opset)],
        attributes=[attribute.name for attribute in spec.attributes],
        doc_string=spec.summary,
    )


def _nodes(nodes: Iterator[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in [attribute.g, *attribute.graphs]:
                yield from _nodes(iter(graph.node))


def used_operators(model: onnx.ModelProto) -> list[str]:
    """Return the names of the ``ai.dirnet`` operators in the graph, its subgraphs and its functions, sorted.

    Raises:
        ValueError: the model uses a name that is no operator of ``ai.dirnet``.
    """
    found = {node.op_type for node in _nodes(iter(model.graph.node)) if node.domain == DOMAIN}
    for function in model.functions:
        if function.domain != DOMAIN:
            found |= {node.op_type for node in _nodes(iter(function.node)) if node.domain == DOMAIN}
    unknown = sorted(found - set(OPERATORS))
    if unknown:
        raise ValueError(f"{DOMAIN} has no operator named {', '.join(unknown)}")
    return sorted(found)


def add_functions(model: onnx.ModelProto) -> None:
    """Put into ``model`` the bodies of exactly the ``ai.dirnet`` operators that it uses, and their import.

    Bodies that are there already are replaced, so that doing it twice changes nothing.

    Raises:
        ValueError: the model uses a name that is no operator of ``ai.dirnet``, or its opset is too old.
    """
    names = used_operators(model)
    # onnx.checker wants the functions of a model to import the very opset that the model imports.
    opset = next((opset.version for opset in model.opset_import if opset.domain in _STANDARD), BODY_OPSET)
    others = [function for function in model.functions if function.domain != DOMAIN]
    imports = [opset for opset in model.opset_import if opset.domain != DOMAIN]
    if names:
        imports.append(onnx.helper.make_opsetid(DOMAIN, OPERATOR_VERSION))
    del model.functions[:]
    model.functions.extend([*others, *(function_proto(name, opset) for name in names)])
    del model.opset_import[:]
    model.opset_import.extend(imports)
