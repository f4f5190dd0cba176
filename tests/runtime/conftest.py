"""A small convolution that fits, to be spoiled in one way at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from dirnet_convert.onnx_export.operators import pack_bits, single_node_model


@pytest.fixture(autouse=True)
def default_isa(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the choice of instruction set to the library, whatever the caller's environment says."""
    monkeypatch.delenv("DIRNET_ISA", raising=False)


@pytest.fixture
def inputs() -> dict[str, np.ndarray]:
    """BinaryConv2dAddActWithBits: 70 channels to 8, 3 x 3, on an image of 5 x 6."""
    rng = np.random.default_rng(0)
    return {
        "B": pack_bits(rng.standard_normal((2, 5, 6, 70))),
        "W": pack_bits(rng.standard_normal((8, 3, 3, 70))),
        "scale": rng.standard_normal(8, np.float32),
        "bias": rng.standard_normal(8, np.float32),
        "slope": rng.standard_normal(8, np.float32),
        "residual": rng.standard_normal((2, 5, 6, 8), np.float32),
        "threshold": rng.standard_normal(8, np.float32),
    }


@pytest.fixture
def attributes() -> dict[str, int | float | list[int]]:
    return {
        "channels": 70,
        "kernel_shape": [3, 3],
        "strides": [1, 1],
        "pads": [1, 1, 1, 1],
        "dilations": [1, 1],
        "group": 1,
        "clip_min": -6.0,
        "clip_max": 6.0,
    }


@pytest.fixture
def stem_attributes() -> dict[str, int | float | list[int]]:
    return {
        "kernel_shape": [3, 3],
        "strides": [1, 1],
        "pads": [1, 1, 1, 1],
        "pool_kernel_shape": [2, 2],
        "pool_strides": [2, 2],
        "pool_pads": [0, 0, 0, 0],
        "clip_min": -1.0,
        "clip_max": 1.0,
    }


@pytest.fixture
def build() -> Callable[..., bytes]:
    """Build the one-node model as bytes, the graph's shapes left out so that only the kernel can object."""

    def build_model(
        inputs: dict[str, np.ndarray],
        attributes: dict[str, int | float | list[int]],
        *,
        operator: str = "BinaryConv2dAddActWithBits",
        constants: tuple[str, ...] = ("W", "scale", "bias", "slope", "threshold"),
    ) -> bytes:
        model = single_node_model(operator, inputs, attributes, constants=constants)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.ClearField("shape")
        # Without the bodies nothing but the kernel can have run or objected.
        del model.functions[:]
        assert isinstance(model, onnx.ModelProto)
        return model.SerializeToString()

    return build_model
