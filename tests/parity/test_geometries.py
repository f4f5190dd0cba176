"""Convolutions of every form that networks have: each instruction set and the function body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from dirnet_convert.onnx_export.operators import OPERATORS, pack_bits, single_node_model
from dirnet_convert.runtime import Kernels, available_isas, load_session

OPERATOR = "BinaryConv2dAddActWithBits"


@dataclass(frozen=True)
class Geometry:
    """A convolution of ``size`` x ``size`` images, ``group_in`` to ``group_out`` channels in each group."""

    group_in: int
    group_out: int
    group: int = 1
    kernel: tuple[int, int] = (3, 3)
    stride: int = 1
    dilation: int = 1
    size: int = 7

    @property
    def attributes(self) -> dict[str, int | float | list[int]]:
        height, width = (self.dilation * (k - 1) // 2 for k in self.kernel)
        return {
            "channels": self.group_in * self.group,
            "kernel_shape": list(self.kernel),
            "strides": [self.stride] * 2,
            "pads": [height, width, height, width],
            "dilations": [self.dilation] * 2,
            "group": self.group,
            "clip_min": -20.0,
            "clip_max": 20.0,
        }

    def inputs(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        channels, outputs = self.group_in * self.group, self.group_out * self.group
        heights, widths = (
            (self.size + 2 * pad - self.dilation * (k - 1) - 1) // self.stride + 1
            for pad, k in zip(self.attributes["pads"], self.kernel, strict=False)
        )
        return {
            "B": pack_bits(rng.random((2, self.size, self.size, channels)) < 0.5),
            "W": pack_bits(rng.random((outputs, *self.kernel, self.group_in)) < 0.5),
            "scale": rng.standard_normal(outputs, np.float32),
            "bias": rng.integers(-3, 4, outputs).astype(np.float32),
            "slope": rng.random(outputs, np.float32),
            "residual": rng.standard_normal((2, heights, widths, outputs), np.float32),
            "threshold": rng.standard_normal(outputs, np.float32),
        }


GEOMETRIES = {
    "depthwise": Geometry(1, 1, group=72),
    "depthwise 5x5, stride 2": Geometry(1, 1, group=40, kernel=(5, 5), stride=2),
    "depthwise, three for one": Geometry(1, 3, group=33),
    "ResNeXt, 4 in a group": Geometry(4, 4, group=32),
    "ResNeXt, 8 in a group": Geometry(8, 8, group=17, stride=2),
    "16 in a group": Geometry(16, 16, group=5),
    "16 in a group, fewer out": Geometry(16, 5, group=6),
    "24 in a group": Geometry(24, 24, group=7),
    "32 in a group": Geometry(32, 32, group=3),
    "48 in a group": Geometry(48, 48, group=3),
    "96 in a group, more out": Geometry(96, 130, group=2),
    "120 in a group": Geometry(120, 120, group=2, stride=2),
    "1x1 in groups": Geometry(80, 80, group=3, kernel=(1, 1)),
    "1x1, stride 2": Geometry(100, 70, kernel=(1, 1), stride=2),
    "1x1, one word": Geometry(24, 144, kernel=(1, 1)),
    "5x5": Geometry(40, 33, kernel=(5, 5)),
    "7x7": Geometry(65, 20, kernel=(7, 7), stride=2, size=9),
    "11x11": Geometry(3, 64, kernel=(11, 11), stride=4, size=12),
    "1x7": Geometry(70, 66, kernel=(1, 7)),
    "7x1": Geometry(70, 66, kernel=(7, 1)),
    "dilated": Geometry(64, 64, dilation=2),
    "dilated in groups": Geometry(8, 8, group=9, dilation=3, size=9),
}


@pytest.fixture(params=GEOMETRIES)
def node(request: pytest.FixtureRequest) -> tuple[dict[str, np.ndarray], dict]:
    geometry = GEOMETRIES[request.param]
    seed = list(GEOMETRIES).index(request.param)
    print(f"seed {seed}")
    return geometry.inputs(np.random.default_rng(seed)), geometry.attributes


@pytest.mark.usefixtures("library")
def test_every_isa_gives_the_reference(node, assert_same):
    inputs, attributes = node
    expected = OPERATORS[OPERATOR].reference(inputs, attributes)
    constants = tuple(name for name in inputs if name not in ("B", "residual"))
    feeds = {name: inputs[name] for name in ("B", "residual")}
    model = single_node_model(OPERATOR, inputs, attributes, constants=constants).SerializeToString()
    for isa in available_isas():
        for threads in (1, 2):
            session = load_session(model, threads=threads, isa=isa)
            assert_same(session.run(None, feeds), expected, f"{isa}, {threads} threads: {attributes}")


def test_the_function_body_gives_the_reference(node, assert_same_numbers):
    inputs, attributes = node
    expected = OPERATORS[OPERATOR].reference(inputs, attributes)
    model = single_node_model(OPERATOR, inputs, attributes).SerializeToString()
    session = load_session(model, threads=1, kernels=Kernels.STOCK)
    assert_same_numbers(session.run(None, inputs), expected, attributes)
