"""The stem on every route: floats within rounding of the reference, bits equal where no sum is near its
threshold, and always those of the floats that come with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from dirnet_convert.onnx_export.operators import OPERATORS, single_node_model, unpack_bits
from dirnet_convert.runtime import Kernels, available_isas, load_session

NAMES = tuple(name for name in OPERATORS if name.startswith("StemConv2d") and "Int8" not in name)
# Sums of up to 256 products of numbers about 1, in Winograd's form about ten times a plain sum's rounding.
TOLERANCE = 5e-4


@dataclass(frozen=True)
class Shape:
    """kernel, stride and pad of the convolution, then window, stride and pad of the pooling."""

    kernel: int
    stride: int
    pad: int
    pool: int = 1
    pool_stride: int = 1
    pool_pad: int = 0


SHAPES = (
    Shape(7, 2, 3, 3, 2, 1),
    Shape(7, 2, 3),
    Shape(8, 2, 0, 2, 2),
    Shape(4, 1, 2, 3, 1, 1),
    Shape(3, 1, 1),
    Shape(3, 2, 1, 2, 3),
    Shape(5, 3, 1, 3, 2, 1),
    Shape(1, 1, 0),
)


def attributes(shape: Shape, clip: tuple[float, float]) -> dict[str, float | list[int]]:
    return {
        "kernel_shape": [shape.kernel] * 2,
        "strides": [shape.stride] * 2,
        "pads": [shape.pad] * 4,
        "pool_kernel_shape": [shape.pool] * 2,
        "pool_strides": [shape.pool_stride] * 2,
        "pool_pads": [shape.pool_pad] * 4,
        "clip_min": clip[0],
        "clip_max": clip[1],
    }


def tensors(shape: Shape, seed: int, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    channels, out_channels = int(rng.integers(1, 5)), int(rng.integers(1, 140))
    height, width = (int(size) for size in rng.integers(shape.kernel + 6, 40, 2))
    return {
        "X": rng.standard_normal((batch, channels, height, width), np.float32),
        "W": rng.standard_normal((out_channels, channels, shape.kernel, shape.kernel), np.float32),
        "bias": rng.standard_normal(out_channels).astype(np.float32),
        "slope": rng.uniform(-0.5, 1.5, out_channels).astype(np.float32),
        "threshold": rng.standard_normal(out_channels).astype(np.float32),
    }


def check(
    name: str, inputs: dict[str, np.ndarray], values: dict[str, object], found: list[np.ndarray]
) -> None:
    plain = "StemConv2dPRelu" if "PRelu" in name else "StemConv2d"
    given = {key: inputs[key] for key in OPERATORS[plain].input_names()}
    (expected,) = OPERATORS[plain].reference(given, values)
    outputs = dict(zip(OPERATORS[name].output_names(), found, strict=True))
    if "Y" in outputs:
        np.testing.assert_allclose(outputs["Y"], expected, rtol=0, atol=TOLERANCE)
    if "Bo" in outputs:
        bits = unpack_bits(outputs["Bo"], expected.shape[-1]) > 0
        clear = np.abs(expected - inputs["threshold"]) > TOLERANCE
        assert np.array_equal(bits[clear], (expected >= inputs["threshold"])[clear])
        if expected.shape[-1] % 64:
            assert not np.any(outputs["Bo"][..., -1] >> np.uint64(expected.shape[-1] % 64))
        if "Y" in outputs:
            assert np.array_equal(bits, outputs["Y"] >= inputs["threshold"])


def sessions(model: bytes) -> list[tuple[str, object]]:
    made = [("stock", load_session(model, kernels=Kernels.STOCK, threads=1))]
    for isa in available_isas():
        made += [(f"{isa} {threads}", load_session(model, isa=isa, threads=threads)) for threads in (1, 2)]
    return made


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_route_gives_the_references_values(name: str, shape: Shape) -> None:
    for seed, batch in enumerate((2, 1, 0)):
        clip = (-np.inf, np.inf) if seed % 2 else (-1.0, 2.5)
        drawn = tensors(shape, seed, batch)
        inputs = {key: drawn[key] for key in OPERATORS[name].input_names()}
        values = attributes(shape, clip)
        for constants in (("W", "bias", "slope", "threshold"), ()):
            held = tuple(key for key in constants if key in inputs)
            model = single_node_model(name, inputs, values, constants=held)
            for route, session in sessions(model.SerializeToString()):
                print(f"seed {seed}, {route}")
                found = session.run(None, {k: v for k, v in inputs.items() if k not in held})
                check(name, drawn, values, found)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("value", [np.inf, -np.inf, 3e38])
def test_infinities_reach_the_windows_that_hold_them_and_no_other(value: float) -> None:
    shape = SHAPES[0]
    inputs = tensors(shape, 5, 1)
    inputs["X"][0, 0, 11, 13] = value
    inputs["W"] = np.abs(inputs["W"])
    values = attributes(shape, (-4.0, 4.0))
    given = {key: inputs[key] for key in OPERATORS["StemConv2d"].input_names()}
    (expected,) = OPERATORS["StemConv2d"].reference(given, values)
    assert np.isfinite(expected).all()
    model = single_node_model("StemConv2d", given, values, constants=("W", "bias"))
    for route, session in sessions(model.SerializeToString()):
        (found,) = session.run(None, {"X": inputs["X"]})
        # Beside a number near float32's end, a tile in Winograd's form keeps none of its neighbours' digits.
        apart = np.ones(expected.shape, bool)
        if value == 3e38:
            apart[:, :5, :6] = False
        assert np.allclose(found[apart], expected[apart], rtol=0, atol=TOLERANCE), route
