"""The operator table, packing, and the function bodies that every exported model carries."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dirnet_convert.onnx_export.operators import (
    DOMAIN,
    OPERATOR_VERSION,
    OPERATORS,
    add_functions,
    function_proto,
    pack_bits,
    unpack_bits,
    used_operators,
    word_count,
)

NAMES = {
    "Binarize",
    "BinaryConv2d",
    "BinaryConv2dAct",
    "BinaryConv2dActToBits",
    "BinaryConv2dActWithBits",
    "BinaryConv2dAddAct",
    "BinaryConv2dAddActToBits",
    "BinaryConv2dAddActWithBits",
    "BinaryGemm",
    "BinaryMaxPool2d",
    "StemConv2d",
    "StemConv2dToBits",
    "StemConv2dWithBits",
    "StemConv2dPRelu",
    "StemConv2dPReluToBits",
    "StemConv2dPReluWithBits",
    "StemConv2dInt8",
    "StemConv2dInt8ToBits",
    "StemConv2dInt8WithBits",
    "StemConv2dInt8PRelu",
    "StemConv2dInt8PReluToBits",
    "StemConv2dInt8PReluWithBits",
}


@settings(max_examples=60, deadline=None)
@given(channels=st.integers(1, 200), seed=st.integers(0, 2**32 - 1), empty=st.booleans())
def test_unpacking_undoes_packing(channels, seed, empty):
    x = np.random.default_rng(seed).standard_normal((0 if empty else 2, 3, channels), np.float32)
    words = pack_bits(x)
    assert words.dtype == np.uint64 and words.shape == (*x.shape[:2], word_count(channels))
    assert np.array_equal(unpack_bits(words, channels), np.where(x >= 0, 1, -1))
    if channels % 64:
        assert not np.any(words[..., -1] >> np.uint64(channels % 64)), "spare bits must be 0"


def test_packing_is_least_significant_bit_first():
    x = np.full(66, -1.0)
    x[[0, 5, 63, 65]] = 1
    assert pack_bits(x).tolist() == [1 | 1 << 5 | 1 << 63, 1 << 1]


def test_signs_of_zeros_and_nan():
    assert pack_bits(np.array([0.0, -0.0, np.nan, np.inf, -np.inf])).tolist() == [0b01011]


def test_unpacking_refuses_another_number_of_words():
    with pytest.raises(ValueError, match="65 channels need uint64 words"):
        unpack_bits(np.zeros((2, 1), np.uint64), 65)


def test_the_table_holds_the_operators_of_version_1():
    assert set(OPERATORS) == NAMES
    assert all(name == spec.name for name, spec in OPERATORS.items())


@pytest.mark.parametrize("name", sorted(NAMES))
def test_bodies_are_self_contained_and_use_every_attribute(name):
    function = function_proto(name)
    spec = OPERATORS[name]
    assert {node.domain for node in function.node} == {""}
    assert tuple(function.input) == spec.input_names() and tuple(function.output) == spec.output_names()
    assert set(function.attribute) == {attribute.name for attribute in spec.attributes}
    referred = {a.ref_attr_name for node in function.node for a in node.attribute if a.ref_attr_name}
    assert referred == set(function.attribute)
    read = {item for node in function.node for item in node.input}
    assert set(function.input) <= read


def test_bodies_of_an_old_opset_are_refused():
    with pytest.raises(ValueError, match="opset 18 or newer, got 17"):
        function_proto("Binarize", 17)


def graph_of(*nodes: onnx.NodeProto, name: str = "g") -> onnx.GraphProto:
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.UINT64, None)
    return onnx.helper.make_graph(list(nodes), name, [], [output])


def binarize_node() -> onnx.NodeProto:
    return onnx.helper.make_node("Binarize", ["x", "t"], ["y"], domain=DOMAIN, channels=3)


def model_of(*nodes: onnx.NodeProto, functions: tuple[onnx.FunctionProto, ...] = ()) -> onnx.ModelProto:
    opsets = [onnx.helper.make_opsetid("", 21)]
    return onnx.helper.make_model(graph_of(*nodes), opset_imports=opsets, functions=functions)


def test_exactly_the_used_functions_are_added_at_the_models_opset():
    model = model_of(binarize_node(), onnx.helper.make_node("Relu", ["a"], ["b"]))
    for _ in range(2):
        add_functions(model)
        assert [(function.domain, function.name) for function in model.functions] == [(DOMAIN, "Binarize")]
        assert {opset.domain: opset.version for opset in model.opset_import} == {
            "": 21,
            DOMAIN: OPERATOR_VERSION,
        }
        assert model.functions[0].opset_import[0].version == 21


def test_functions_of_other_domains_stay_and_unused_ones_of_ours_go():
    other = onnx.helper.make_function("other", "F", [], [], [], [onnx.helper.make_opsetid("", 21)])
    model = model_of(binarize_node(), functions=(other, function_proto("BinaryGemm", 21)))
    add_functions(model)
    assert [function.name for function in model.functions] == ["F", "Binarize"]


def test_a_model_without_our_operators_is_left_alone():
    model = model_of(onnx.helper.make_node("Relu", ["a"], ["b"]))
    before = model.SerializeToString()
    add_functions(model)
    assert model.SerializeToString() == before


def test_operators_in_subgraphs_and_in_functions_are_found():
    branch = onnx.helper.make_node(
        "If", ["c"], ["y"], then_branch=graph_of(binarize_node()), else_branch=graph_of(binarize_node())
    )
    gemm = onnx.helper.make_node("BinaryGemm", ["b", "w", "s", "z"], ["y"], domain=DOMAIN, channels=3)
    imports = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid(DOMAIN, 1)]
    wrapping = onnx.helper.make_function("other", "F", ["b", "w", "s", "z"], ["y"], [gemm], imports)
    assert used_operators(model_of(branch, functions=(wrapping,))) == ["Binarize", "BinaryGemm"]


def test_an_unknown_operator_is_named():
    node = onnx.helper.make_node("BinaryConv3d", [], ["y"], domain=DOMAIN)
    with pytest.raises(ValueError, match=r"ai\.dirnet has no operator named BinaryConv3d"):
        add_functions(model_of(node))
