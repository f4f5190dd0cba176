"""The INT8 stem on every route: sums are integers, so that all give the reference's bits."""

from __future__ import annotations

import numpy as np
import pytest

from dirnet_convert.onnx_export.operators import OPERATORS, single_node_model
from tests.parity.test_stem import SHAPES, Shape, attributes, sessions

NAMES = tuple(name for name in OPERATORS if name.startswith("StemConv2dInt8"))
ZERO_POINTS = (0, 255, 117)


def tensors(shape: Shape, seed: int, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    channels, out_channels = int(rng.integers(1, 5)), int(rng.integers(1, 140))
    height, width = (int(size) for size in rng.integers(shape.kernel + 6, 40, 2))
    return {
        "X": rng.standard_normal((batch, channels, height, width), np.float32) * 2,
        "W": rng.integers(-127, 128, (out_channels, channels, shape.kernel, shape.kernel), np.int8),
        "scale": rng.uniform(-1e-3, 1e-3, out_channels).astype(np.float32),
        "bias": rng.standard_normal(out_channels).astype(np.float32),
        "slope": rng.uniform(-0.5, 1.5, out_channels).astype(np.float32),
        "threshold": rng.standard_normal(out_channels).astype(np.float32),
    }


def check(name: str, inputs: dict[str, np.ndarray], values: dict[str, object], held: tuple[str, ...]) -> None:
    given = {key: inputs[key] for key in OPERATORS[name].input_names()}
    expected = OPERATORS[name].reference(given, values)
    constants = tuple(key for key in held if key in given)
    model = single_node_model(name, given, values, constants=constants)
    for route, session in sessions(model.SerializeToString()):
        found = session.run(None, {k: v for k, v in given.items() if k not in constants})
        for ours, theirs in zip(found, expected, strict=True):
            # Equal as numbers: a zero may have either sign behind a maximum.
            assert np.array_equal(ours, theirs), (route, constants)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_route_gives_the_references_bits(name: str, shape: Shape) -> None:
    for seed, (batch, zero_point) in enumerate(zip((2, 1, 0), ZERO_POINTS, strict=True)):
        print(f"seed {seed}")
        clip = (-np.inf, np.inf) if seed % 2 else (-1.0, 1.5)
        inputs = tensors(shape, seed, batch)
        values = attributes(shape, clip) | {"input_scale": 0.031, "input_zero_point": zero_point}
        for held in (("W", "scale", "bias", "slope", "threshold"), ()):
            check(name, inputs, values, held)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
def test_pixels_that_are_no_numbers_infinite_or_between_two_bytes(zero_point: int) -> None:
    inputs = tensors(SHAPES[0], 7, 1)
    pixels = inputs["X"].reshape(-1)
    strange = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, -0.0, 1e-42, 0.25, 0.75, -0.25], np.float32)
    pixels[: 20 * len(strange)] = np.tile(strange, 20)
    values = attributes(SHAPES[0], (-np.inf, np.inf)) | {
        "input_scale": 0.5,
        "input_zero_point": zero_point,
    }
    check("StemConv2dInt8PReluWithBits", inputs, values, ("W", "scale", "bias", "slope", "threshold"))
