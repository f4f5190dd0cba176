"""A PReLU becomes operators that ONNX Runtime has vectors for, with the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from pass_graphs import CHANNELS, GraphBuilder, rewritten

from dirnet_convert.onnx_export import passes

SHAPE = (CHANNELS, 1, 1)


def prelu_of(slope: np.ndarray) -> GraphBuilder:
    g = GraphBuilder()
    # Both infinities, and no number, which compare as what they are.
    row = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1e-45, 3e38, -3e38], np.float32).reshape(SHAPE)
    g.add("PRelu", g.add("Add", "x", g.constant(row)), g.constant(slope.astype(np.float32)))
    return g


@pytest.mark.parametrize(
    ("slope", "kinds"),
    [
        (np.full(SHAPE, 0.25), {"Add": 1, "Mul": 1, "Max": 1}),
        (np.linspace(0.001, 1.0, CHANNELS).reshape(SHAPE), {"Add": 1, "Mul": 1, "Max": 1}),
        (np.linspace(-1.0, 2.0, CHANNELS).reshape(SHAPE), {"Add": 2, "Mul": 1, "Max": 1, "Min": 1}),
        (np.zeros(SHAPE), {"Add": 2, "Mul": 1, "Max": 1, "Min": 1}),
        (np.array([0.5]), {"Add": 1, "Mul": 1, "Max": 1}),
    ],
    ids=["one slope", "slopes up to one", "any slopes", "zeros", "a scalar"],
)
def test_the_numbers_stay(slope: np.ndarray, kinds: dict[str, int]) -> None:
    g = prelu_of(slope)
    assert rewritten(g.model("v1"), passes.expand_prelu) == kinds


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_slope_that_is_no_number_stays(value: float) -> None:
    slope = np.full(SHAPE, 0.5)
    slope[3] = value
    assert rewritten(prelu_of(slope).model("v1"), passes.expand_prelu)["PRelu"] == 1


def test_a_slope_that_depends_on_the_input_stays() -> None:
    g = GraphBuilder()
    g.add("PRelu", "x", g.add("ReduceMax", "x"))
    assert rewritten(g.model("v1"), passes.expand_prelu)["PRelu"] == 1
