"""Attributes and tensors drawn at random either run or are refused with the operator's name: none crashes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dirnet_convert.onnx_export.operators import pack_bits
from dirnet_convert.runtime import load_session

pytestmark = pytest.mark.usefixtures("library")

Tensors = dict[str, np.ndarray]
Attributes = dict[str, int | float | list[int]]

SMALL = [-1, 0, 1, 2, 3, 7, 2**63 - 1]
POOL = {
    "channels": 70,
    "kernel_shape": [2, 3],
    "strides": [2, 1],
    "pads": [0, 1, 0, 1],
    "dilations": [1, 1],
    "ceil_mode": 0,
}


def _stem(rng: np.random.Generator) -> Tensors:
    vectors = {name: rng.standard_normal(5, np.float32) for name in ("bias", "slope", "threshold")}
    weights = rng.standard_normal((5, 3, 3, 3), np.float32)
    return {"X": rng.standard_normal((2, 3, 8, 9), np.float32), "W": weights, **vectors}


def _int8_stem(rng: np.random.Generator) -> Tensors:
    floats = _stem(rng)
    image, weights, *vectors = floats.items()
    scale = ("scale", rng.random(5, np.float32))
    return dict((image, ("W", (16 * weights[1]).astype(np.int8)), scale, *vectors))


def _gemm(rng: np.random.Generator) -> Tensors:
    bits = {"B": pack_bits(rng.random((2, 3, 70)) < 0.5), "W": pack_bits(rng.random((5, 70)) < 0.5)}
    return {**bits, **{name: rng.standard_normal(5, np.float32) for name in ("scale", "bias")}}


@pytest.fixture
def nodes(
    inputs: Tensors, attributes: Attributes, stem_attributes: Attributes
) -> dict[str, tuple[Tensors, Attributes]]:
    """One node of each kind, which fits."""
    rng = np.random.default_rng(0)
    return {
        "BinaryConv2dAddActWithBits": (inputs, attributes),
        "BinaryMaxPool2d": ({"B": inputs["B"]}, POOL),
        "BinaryGemm": (_gemm(rng), {"channels": 70}),
        "StemConv2dPReluWithBits": (_stem(rng), stem_attributes),
        "StemConv2dInt8PReluWithBits": (
            _int8_stem(rng),
            stem_attributes | {"input_scale": 0.05, "input_zero_point": 9},
        ),
    }


def _damaged_attributes(rng: np.random.Generator, attributes: Attributes) -> Attributes:
    damaged = dict(attributes)
    for name in rng.choice(list(attributes), 2):
        value = attributes[str(name)]
        if isinstance(value, float):
            damaged[str(name)] = float(rng.choice([np.nan, np.inf, -np.inf, 0.0, 1e-45, -3.0]))
            continue
        # Large pads ask for an output that fits into the address space but not into the memory.
        numbers = SMALL if "pads" in name else [*SMALL, 2**31 - 1]
        drawn = [int(rng.choice(numbers)) for _ in range(len(value) if isinstance(value, list) else 1)]
        damaged[str(name)] = drawn if isinstance(value, list) else drawn[0]
    return damaged


def _damaged_tensors(rng: np.random.Generator, inputs: Tensors) -> Tensors:
    name = str(rng.choice(list(inputs)))
    shape = [int(rng.integers(0, 4)) for _ in range(rng.integers(0, 5))]
    return inputs | {name: np.resize(inputs[name], shape)}


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize(
    "operator",
    [
        "BinaryConv2dAddActWithBits",
        "BinaryMaxPool2d",
        "BinaryGemm",
        "StemConv2dPReluWithBits",
        "StemConv2dInt8PReluWithBits",
    ],
)
def test_random_damage_never_crashes(
    build: Callable[..., bytes], nodes: dict[str, tuple[Tensors, Attributes]], operator: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    inputs, attributes = nodes[operator]
    # Attributes alone, tensors alone, and both.
    damaged = attributes if seed % 3 == 1 else _damaged_attributes(rng, attributes)
    values = inputs if seed % 3 == 0 else _damaged_tensors(rng, inputs)
    constants = () if seed % 2 else tuple(name for name in inputs if name not in ("X", "B", "residual"))
    try:
        session = load_session(build(values, damaged, operator=operator, constants=constants), threads=1)
        session.run(None, {key: value for key, value in values.items() if key not in constants})
    except Exception as failure:
        assert operator in str(failure), failure
