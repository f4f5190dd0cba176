"""Sessions: what they run, how they are chosen, and the sentences for what cannot be loaded."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.onnx_export.operators import OPERATORS, single_node_model
from dirnet_convert.runtime import (
    Kernels,
    Optimization,
    available_isas,
    chosen_isa,
    library_path,
    load_session,
)

pytestmark = pytest.mark.usefixtures("library")
OPERATOR = "BinaryConv2dAddActWithBits"


def feeds(inputs):
    return {name: inputs[name] for name in ("B", "residual")}


@pytest.fixture
def model(inputs, attributes):
    constants = ("W", "scale", "bias", "slope", "threshold")
    return single_node_model(OPERATOR, inputs, attributes, constants=constants).SerializeToString()


def operators_run(session, inputs):
    session.run(None, feeds(inputs))
    with open(session.end_profiling()) as handle:
        events = json.load(handle)
    return {event["args"]["op_name"] for event in events if event.get("cat") == "Node"}


def test_kernels_run_where_the_library_is_registered(model, inputs, tmp_path):
    session = load_session(model, profile_prefix=tmp_path / "profile")
    assert operators_run(session, inputs) == {OPERATOR}


def test_bodies_run_with_stock_kernels(model, inputs, tmp_path):
    session = load_session(model, kernels=Kernels.STOCK, profile_prefix=tmp_path / "profile")
    found = operators_run(session, inputs)
    assert OPERATOR not in found and "ConvInteger" in found


@pytest.mark.parametrize("kind", [bytes, str])
def test_only_unpacked_bodies_go_without_a_plan_of_buffers(model, tmp_path, kind):
    plain = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Relu", ["x"], ["y"])],
            "plain",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
        ),
        ir_version=10,
        opset_imports=[onnx.helper.make_opsetid("", 21)],
    ).SerializeToString()

    def plans(content, kernels):
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        session = load_session(content if kind is bytes else path, kernels=kernels)
        return session.get_session_options().enable_mem_reuse

    assert not plans(model, Kernels.STOCK)
    assert plans(model, Kernels.DIRNET) and plans(plain, Kernels.STOCK)


def test_optimized_graph_is_written(model, tmp_path):
    path = tmp_path / "optimized.onnx"
    load_session(model, optimized_model=path)
    assert [node.op_type for node in onnx.load(path).graph.node] == [OPERATOR]


@pytest.mark.parametrize("optimization", Optimization)
def test_model_file_and_bytes_give_the_same(model, inputs, attributes, tmp_path, optimization):
    path = tmp_path / "model.onnx"
    path.write_bytes(model)
    expected = OPERATORS[OPERATOR].reference(inputs, attributes)
    for source in (path, str(path), model):
        session = load_session(source, threads=1, optimization=optimization)
        for found, wanted in zip(session.run(None, feeds(inputs)), expected, strict=True):
            assert np.array_equal(found, wanted)


def test_every_isa_can_be_asked_for_by_name(model, inputs, attributes):
    expected = OPERATORS[OPERATOR].reference(inputs, attributes)
    for isa in available_isas():
        found = load_session(model, isa=str(isa)).run(None, feeds(inputs))
        assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True)), isa


def test_isa_that_does_not_exist_is_a_usage_error(model):
    with pytest.raises(
        UsageError, match=r"ISA 'sse9' is unknown or not available here; choose from .*portable"
    ):
        load_session(model, isa="sse9")


def test_isa_means_nothing_to_stock_kernels(model):
    with pytest.raises(UsageError, match="stock"):
        load_session(model, isa="portable", kernels=Kernels.STOCK)


def test_environment_variable_forces_the_isa(model, monkeypatch):
    monkeypatch.setenv("DIRNET_ISA", "portable")
    assert chosen_isa() == "portable"
    load_session(model)


def test_bad_environment_variable_fails_with_a_clear_sentence(model, monkeypatch):
    monkeypatch.setenv("DIRNET_ISA", "sse9")
    with pytest.raises(DirnetError, match=r"DIRNET_ISA=sse9 .* use one of reference, portable"):
        load_session(model)
    with pytest.raises(DirnetError, match=r"DIRNET_ISA=sse9"):
        chosen_isa()
    # A session that names its own ISA does not ask the environment.
    load_session(model, isa="portable")


def test_library_itself_refuses_an_isa_that_it_lacks():
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("dirnet.isa", "sse9")
    with pytest.raises(
        Exception, match=r"ISA 'sse9', which this library or CPU does not have; usable are reference"
    ):
        options.register_custom_ops_library(str(library_path()))


def test_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"There is no model file .*absent\.onnx"):
        load_session(tmp_path / "absent.onnx")


@pytest.mark.parametrize("keep", [0, 10, 0.5])
def test_damaged_file_is_one_sentence(model, tmp_path, keep, capfd):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(model[: int(keep * len(model)) if isinstance(keep, float) else keep])
    with pytest.raises(DirnetError, match=r"^Cannot load .*damaged\.onnx: .*\.$") as failure:
        load_session(path)
    assert "\n" not in str(failure.value) and "onnxruntime_src" not in str(failure.value)
    assert capfd.readouterr() == ("", "")


def test_no_threads_is_a_usage_error(model):
    with pytest.raises(UsageError, match="at least 1"):
        load_session(model, threads=0)
