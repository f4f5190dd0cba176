"""ONNX Runtime with and without the library and onnx's own evaluator agree with the reference."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from dirnet_convert.onnx_export.operators import OPERATORS, single_node_model
from dirnet_convert.runtime import Kernels, Optimization, available_isas, load_session

# The stem is a sum of floats, whose rounding differs from route to route: see test_stem.py.
OPERATOR_NAMES = [name for name in sorted(OPERATORS) if not name.startswith("StemConv2d")]
# The first 1.x of ONNX Runtime that supports an opset for good.
OLDEST_MINOR = {23: 23, 24: 24}


def onnxruntime_minor() -> int:
    return int(onnxruntime.__version__.split(".")[1])


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("operator", OPERATOR_NAMES)
def test_library_with_constant_and_with_computed_weights(draw_case, assert_same, operator, seed):
    case = draw_case(operator, seed)
    expected = case.expected()
    isa = available_isas()[seed % len(available_isas())]
    for constants in (case.constants, ()):
        model = single_node_model(operator, case.inputs, case.attributes, constants=constants)
        for threads in (1, 2):
            session = load_session(model.SerializeToString(), threads=threads, isa=isa)
            found = session.run(None, case.feeds(constants))
            assert_same(found, expected, f"{isa}, {threads} threads, constants {constants}: {case}")


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("operator", OPERATOR_NAMES)
def test_stock_onnxruntime_runs_the_function_body(draw_case, assert_same_numbers, operator, seed):
    case = draw_case(operator, seed)
    expected = case.expected()
    for constants in (case.constants, ()):
        model = single_node_model(operator, case.inputs, case.attributes, constants=constants)
        for optimization in Optimization:
            session = load_session(
                model.SerializeToString(), threads=1, kernels=Kernels.STOCK, optimization=optimization
            )
            found = session.run(None, case.feeds(constants))
            assert_same_numbers(found, expected, f"{optimization}, constants {constants}: {case}")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("operator", OPERATOR_NAMES)
def test_onnx_evaluator_runs_the_function_body(draw_case, assert_same_numbers, operator, seed):
    case = draw_case(operator, seed)
    model = single_node_model(operator, case.inputs, case.attributes)
    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(model).run(None, case.inputs)
    assert_same_numbers(found, case.expected(), case)


@pytest.mark.parametrize("opset", [18, 19, 21, 22, 23, 24])
@pytest.mark.parametrize("operator", OPERATOR_NAMES)
def test_bodies_mean_the_same_in_every_opset(draw_case, assert_same_numbers, operator, opset):
    if onnxruntime_minor() < OLDEST_MINOR.get(opset, 0):
        pytest.skip(f"this ONNX Runtime does not support opset {opset}")
    case = draw_case(operator, 1)
    model = single_node_model(operator, case.inputs, case.attributes, opset=opset)
    for output in model.graph.output:
        for axis, dim in enumerate(output.type.tensor_type.shape.dim):
            dim.dim_param = f"{output.name}{axis}"
    onnx.checker.check_model(model, full_check=True)
    session = load_session(model.SerializeToString(), threads=1, kernels=Kernels.STOCK)
    assert_same_numbers(session.run(None, case.inputs), case.expected(), case)


@pytest.mark.parametrize("operator", OPERATOR_NAMES)
def test_bodies_need_no_static_shapes(draw_case, assert_same_numbers, operator):
    case = draw_case(operator, 2)
    model = single_node_model(operator, case.inputs, case.attributes, constants=case.constants)
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_param = f"{value.name}{axis}"
    session = load_session(model.SerializeToString(), threads=1, kernels=Kernels.STOCK)
    for batch in (1, 3):
        # Each input but the constants has the batch as its first axis.
        feeds = {
            name: np.repeat(value[:1], batch, 0)
            if len(value)
            else np.ones((batch, *value.shape[1:]), value.dtype)
            for name, value in case.feeds(case.constants).items()
        }
        expected = OPERATORS[operator].reference(case.inputs | feeds, case.attributes)
        assert_same_numbers(session.run(None, feeds), expected, case)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("operator", ["BinaryConv2dAddActWithBits", "Binarize", "BinaryGemm"])
def test_one_session_runs_from_several_threads_at_once(draw_case, assert_same, operator):
    cases = [draw_case(operator, 7)]
    expected = cases[0].expected()
    for constants in (cases[0].constants, ()):
        model = single_node_model(operator, cases[0].inputs, cases[0].attributes, constants=constants)
        session = load_session(model.SerializeToString(), threads=2)
        with ThreadPoolExecutor(4) as pool:
            runs = [pool.submit(session.run, None, cases[0].feeds(constants)) for _ in range(64)]
            for run in runs:
                assert_same(run.result(), expected, cases[0])
