"""Every instruction set that this machine has gives the numbers of the numpy reference."""

from __future__ import annotations

import numpy as np
import pytest

from dirnet_convert.onnx_export.operators import OPERATORS
from dirnet_convert.runtime import available_isas, kernels

pytestmark = pytest.mark.usefixtures("library")
CONVOLUTIONS = [name for name in OPERATORS if name.startswith("BinaryConv2d")]


def run_convolution(case, isa, threads):
    attributes, inputs = case.attributes, case.inputs
    geometry = kernels.ConvGeometry(
        channels=attributes["channels"],
        kernel_shape=tuple(attributes["kernel_shape"]),
        strides=tuple(attributes["strides"]),
        pads=tuple(attributes["pads"]),
        dilations=tuple(attributes["dilations"]),
        group=attributes["group"],
    )
    activation = kernels.Activation(
        slope=inputs.get("slope"),
        residual=inputs.get("residual"),
        clip_min=attributes.get("clip_min", -np.inf),
        clip_max=attributes.get("clip_max", np.inf),
    )
    outputs = kernels.binary_conv2d(
        inputs["B"],
        inputs["W"],
        geometry,
        inputs["scale"],
        inputs["bias"],
        activation=activation,
        threshold=inputs.get("threshold"),
        want_float="Y" in OPERATORS[case.operator].output_names(),
        isa=isa,
        threads=threads,
    )
    return tuple(output for output in outputs if output is not None)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("operator", CONVOLUTIONS)
def test_convolution(draw_case, assert_same, operator, seed):
    case = draw_case(operator, seed)
    expected = case.expected()
    for isa in available_isas():
        for threads in (1, 2):
            assert_same(run_convolution(case, isa, threads), expected, f"{isa}, {threads} threads: {case}")


@pytest.mark.parametrize("seed", range(40))
def test_binarize(draw_case, assert_same, seed):
    case = draw_case("Binarize", seed)
    for isa in available_isas():
        for threads in (1, 2):
            bits = kernels.binarize(case.inputs["X"], case.inputs["threshold"], isa=isa, threads=threads)
            assert_same((bits,), case.expected(), f"{isa}, {threads} threads: {case}")


@pytest.mark.parametrize("seed", range(40))
def test_max_pool(draw_case, assert_same, seed):
    case = draw_case("BinaryMaxPool2d", seed)
    (expected,) = case.expected()
    attributes = case.attributes
    for threads in (1, 2):
        bits = kernels.binary_max_pool2d(
            case.inputs["B"],
            attributes["channels"],
            kernel_shape=tuple(attributes["kernel_shape"]),
            strides=tuple(attributes["strides"]),
            pads=tuple(attributes["pads"][:2]),
            dilations=tuple(attributes["dilations"]),
            output_size=expected.shape[1:3],
            threads=threads,
        )
        assert_same((bits,), (expected,), case)
