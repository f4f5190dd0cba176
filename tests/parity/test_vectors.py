"""The shared test vectors of the binary conventions, which the C++ tests read too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dirnet_convert.onnx_export.operators import OPERATORS, single_node_model
from dirnet_convert.onnx_export.operators.reference import convolution_dot
from dirnet_convert.runtime import Kernels, available_isas, kernels, load_session

FILE = Path(__file__).parents[2] / "kernels" / "tests" / "vectors" / "binary_conventions.json"
VECTORS = json.loads(FILE.read_text())


def by_name(kind):
    return pytest.mark.parametrize("vector", VECTORS[kind], ids=lambda vector: vector["name"])


def floats(texts):
    return np.array([float(text) for text in texts], np.float32)


def words(texts):
    return np.array([int(text, 16) for text in texts], np.uint64)


@by_name("binarize")
def test_binarize(vector):
    threshold = floats(vector["threshold"])
    inputs = {"X": floats(vector["x"]).reshape(-1, len(threshold)), "threshold": threshold}
    attributes = {"channels": len(threshold)}
    wanted = words(vector["bits"])
    (found,) = OPERATORS["Binarize"].reference(inputs, attributes)
    assert np.array_equal(found.reshape(-1), wanted)
    model = single_node_model("Binarize", inputs, attributes).SerializeToString()
    (found,) = load_session(model, kernels=Kernels.STOCK).run(None, inputs)
    assert np.array_equal(found.reshape(-1), wanted)


@pytest.mark.usefixtures("library")
@by_name("binarize")
def test_binarize_on_every_isa(vector):
    threshold = floats(vector["threshold"])
    x = floats(vector["x"]).reshape(-1, len(threshold))
    for isa in available_isas():
        found = kernels.binarize(x, threshold, isa=isa)
        assert np.array_equal(found.reshape(-1), words(vector["bits"])), isa


@by_name("dot")
def test_dot_product(vector):
    inputs = {
        "B": words(vector["a"])[None],
        "W": words(vector["w"])[None],
        "scale": np.ones(1, np.float32),
        "bias": np.zeros(1, np.float32),
    }
    attributes = {"channels": vector["channels"]}
    (found,) = OPERATORS["BinaryGemm"].reference(inputs, attributes)
    assert found.item() == vector["dot"]
    model = single_node_model("BinaryGemm", inputs, attributes).SerializeToString()
    assert load_session(model, kernels=Kernels.STOCK).run(None, inputs)[0].item() == vector["dot"]


def convolution_of(vector):
    fields = dict(zip(VECTORS["shape_fields"], vector["shape"], strict=True))
    attributes = {
        "channels": fields["in_c"],
        "kernel_shape": [fields["kernel_h"], fields["kernel_w"]],
        "strides": [fields["stride_h"], fields["stride_w"]],
        "pads": [fields[f"pad_{side}"] for side in ("top", "left", "bottom", "right")],
        "dilations": [fields["dilation_h"], fields["dilation_w"]],
        "group": fields["group"],
    }
    out_channels = fields["out_c"]
    inputs = {
        "B": words(vector["input"]).reshape(fields["batch"], fields["in_h"], fields["in_w"], -1),
        "W": words(vector["weights"]).reshape(out_channels, *attributes["kernel_shape"], -1),
        "scale": np.ones(out_channels, np.float32),
        "bias": np.zeros(out_channels, np.float32),
    }
    return inputs, attributes, np.array(vector["dot"]).reshape(vector["output_shape"])


@by_name("conv2d")
def test_convolution(vector):
    inputs, attributes, wanted = convolution_of(vector)
    assert np.array_equal(convolution_dot(inputs, attributes), wanted)
    model = single_node_model("BinaryConv2d", inputs, attributes).SerializeToString()
    assert np.array_equal(load_session(model, kernels=Kernels.STOCK).run(None, inputs)[0], wanted)


@pytest.mark.usefixtures("library")
@by_name("conv2d")
def test_convolution_with_the_library_on_every_isa(vector):
    inputs, attributes, wanted = convolution_of(vector)
    model = single_node_model("BinaryConv2d", inputs, attributes).SerializeToString()
    for isa in available_isas():
        assert np.array_equal(load_session(model, isa=isa).run(None, inputs)[0], wanted), isa
