"""What does not fit gives a sentence with the operator's, the node's and the tensor's name, never a crash."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dirnet_convert.errors import DirnetError
from dirnet_convert.onnx_export.operators import OPERATORS, pack_bits
from dirnet_convert.runtime import load_session

pytestmark = pytest.mark.usefixtures("library")

BAD_ATTRIBUTES = {
    "no channels": ({"channels": 0}, "'channels' holds 0"),
    "channels that need other words": ({"channels": 130}, "'W' has shape"),
    "group of zero": ({"group": 0}, "'group' holds 0"),
    "group that does not divide the channels": ({"group": 3}, "'group' is 3, which does not divide"),
    "stride of zero": ({"strides": [1, 0]}, "'strides' holds 0"),
    "negative stride": ({"strides": [-1, 1]}, "'strides' holds -1"),
    "one stride": ({"strides": [1]}, "'strides' holds 1 numbers instead of 2"),
    "negative padding": ({"pads": [0, -1, 0, 0]}, "'pads' holds -1"),
    "two pads": ({"pads": [1, 1]}, "'pads' holds 2 numbers instead of 4"),
    "dilation of zero": ({"dilations": [0, 1]}, "'dilations' holds 0"),
    "three dilations": ({"dilations": [1, 1, 1]}, "'dilations' holds 3 numbers instead of 2"),
    "empty kernel": ({"kernel_shape": [0, 3]}, "'kernel_shape' holds 0"),
    "another kernel than the weights": ({"kernel_shape": [3, 5]}, "'W' has shape"),
    "kernel beyond 32 bits": ({"kernel_shape": [65536, 65536]}, "'kernel_shape' with 70 channels"),
    "bound that is not a number": ({"clip_max": float("nan")}, "'clip_max' is not a number"),
    "enormous kernel": ({"kernel_shape": [2**62, 3]}, "'kernel_shape' holds"),
}


@pytest.mark.parametrize("name", BAD_ATTRIBUTES)
def test_bad_attribute(build, inputs, attributes, name):
    change, sentence = BAD_ATTRIBUTES[name]
    with pytest.raises(DirnetError) as failure:
        load_session(build(inputs, attributes | change))
    assert sentence in str(failure.value)
    assert "BinaryConv2dAddActWithBits (node 'node')" in str(failure.value)


def test_group_that_does_not_divide_the_output_channels(build, inputs, attributes):
    weights = {"W": pack_bits(np.ones((8, 3, 3, 14)))}
    with pytest.raises(DirnetError, match=r"'W' has 8 output channels, which group 5 does not divide"):
        load_session(build(inputs | weights, attributes | {"group": 5}))


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_every_attribute_must_be_written(build, inputs, attributes, operator):
    spec = OPERATORS[operator]
    pooling = {"pool_kernel_shape": [1, 1], "pool_strides": [1, 1], "pool_pads": [0, 0, 0, 0]}
    every = attributes | {"ceil_mode": 0, "input_scale": 1.0, "input_zero_point": 0} | pooling
    shapes = inputs | {"X": np.zeros((1, 70), np.float32)}
    if operator.startswith("StemConv2d"):
        shapes |= {"X": np.zeros((1, 3, 8, 8), np.float32), "W": np.zeros((8, 3, 3, 3), np.float32)}
    if operator.startswith("StemConv2dInt8"):
        shapes["W"] = shapes["W"].astype(np.int8)
    for missing in spec.attributes:
        given = {item.name: every[item.name] for item in spec.attributes if item.name != missing.name}
        model = build(
            {name: shapes[name] for name in spec.input_names()}, given, operator=operator, constants=()
        )
        with pytest.raises(DirnetError, match=f"{operator} .*attribute '{missing.name}' is missing"):
            load_session(model)


def test_attribute_of_another_type(build, inputs, attributes):
    with pytest.raises(DirnetError, match="'group' is missing or of another type"):
        load_session(build(inputs, attributes | {"group": 1.0}))


def spoiled_weights(inputs):
    spare = inputs["W"].copy()
    spare[3, 1, 1, 1] |= np.uint64(1 << 63)
    return {
        "bits beyond the channels": ({"W": spare}, "'W' has bits set beyond its 70 channels"),
        "too few words": ({"W": inputs["W"][..., :1].copy()}, r"'W' has shape (8, 3, 3, 1) instead of"),
        "no axis of words": ({"W": inputs["W"][..., 0].copy()}, "'W' has shape (8, 3, 3) instead of"),
        "no output channel": ({"W": inputs["W"][:0]}, "'W' has 0 output channels"),
        **{
            f"short {name}": ({name: inputs[name][:5].copy()}, f"'{name}' has shape (5) instead of (8)")
            for name in ("scale", "bias", "slope", "threshold")
        },
        "scalar scale": ({"scale": np.array(1, np.float32)}, "'scale' has shape () instead of (8)"),
    }


@pytest.mark.parametrize("number", range(9))
def test_packed_tensors_that_do_not_fit(build, inputs, attributes, number):
    change, sentence = list(spoiled_weights(inputs).values())[number]
    with pytest.raises(DirnetError) as failure:
        load_session(build(inputs | change, attributes))
    assert sentence in str(failure.value)


VECTORS = ("scale", "bias", "slope", "threshold")


# The first four damage the weights, which a model that holds them refuses when it is loaded.
@pytest.mark.parametrize(
    ("number", "constants"),
    [*itertools.product(range(9), ((), VECTORS)), *((number, ("W",)) for number in range(4, 9))],
)
def test_given_tensors_that_do_not_fit(build, inputs, attributes, number, constants):
    change, sentence = list(spoiled_weights(inputs).values())[number]
    values = inputs | change
    session = load_session(build(values, attributes, constants=constants))
    with pytest.raises(Exception, match="Status Message") as failure:
        session.run(None, {name: value for name, value in values.items() if name not in constants})
    assert sentence in str(failure.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"B": np.zeros((2, 5, 6, 1), np.uint64)}, "'B' has shape (2, 5, 6, 1)"),
        ({"B": np.zeros((2, 5, 6), np.uint64)}, "'B' has shape (2, 5, 6)"),
        ({"B": np.full((2, 5, 6, 2), 2**63, np.uint64)}, "'B' has bits set beyond its 70 channels"),
        ({"B": np.zeros((2, 0, 6, 2), np.uint64)}, "'B' holds images of 0 x 6"),
        ({"residual": np.zeros((2, 5, 5, 8), np.float32)}, "'residual' has shape (2, 5, 5, 8)"),
        ({"residual": np.zeros((8,), np.float32)}, "'residual' has shape (8)"),
    ],
)
def test_activations_that_do_not_fit(build, inputs, attributes, change, sentence):
    session = load_session(build(inputs, attributes))
    values = {name: inputs[name] for name in ("B", "residual")} | change
    with pytest.raises(Exception, match="Status Message") as failure:
        session.run(None, values)
    assert sentence in str(failure.value) and "BinaryConv2dAddActWithBits" in str(failure.value)
    # The session goes on working.
    session.run(None, {name: inputs[name] for name in ("B", "residual")})


def test_image_smaller_than_the_kernel(build, inputs, attributes):
    session = load_session(build(inputs, attributes | {"pads": [0, 0, 0, 0]}))
    with pytest.raises(Exception, match="images of 2 x 6, too small for the kernel"):
        session.run(
            None, {"B": np.zeros((1, 2, 6, 2), np.uint64), "residual": np.zeros((1, 0, 4, 8), np.float32)}
        )


def test_output_too_large_to_count(build, inputs, attributes):
    largest = 2**31 - 1
    huge = attributes | {"pads": [largest] * 4}
    session = load_session(build(inputs, huge))
    with pytest.raises(Exception, match="'the output' is too large"):
        session.run(None, {name: inputs[name] for name in ("B", "residual")})


def test_another_element_type(build, inputs, attributes):
    with pytest.raises(DirnetError, match=r"Type 'tensor\(int64\)' of input parameter \(W\)"):
        load_session(build(inputs | {"W": inputs["W"].astype(np.int64)}, attributes))


@pytest.mark.parametrize(
    ("operator", "values", "attributes", "sentence"),
    [
        ("Binarize", {"X": (2, 3), "threshold": (4,)}, {"channels": 4}, "'X' has shape (2, 3)"),
        ("Binarize", {"X": (2, 4), "threshold": (3,)}, {"channels": 4}, "'threshold' has shape (3)"),
        ("Binarize", {"X": (), "threshold": (4,)}, {"channels": 4}, "'X' has shape ()"),
    ],
)
def test_binarize(build, operator, values, attributes, sentence):
    arrays = {name: np.zeros(shape, np.float32) for name, shape in values.items()}
    session = load_session(build(arrays, attributes, operator=operator, constants=()))
    with pytest.raises(Exception, match="Status Message") as failure:
        session.run(None, arrays)
    assert sentence in str(failure.value)


@pytest.mark.parametrize(
    ("bits", "sentence"),
    [
        (np.zeros((2, 2), np.uint64), "'B' has shape (2, 2)"),
        (np.zeros((), np.uint64), "'B' has shape ()"),
        (np.full((2, 1), 2**63, np.uint64), "'B' has bits set beyond its 10 channels"),
    ],
)
def test_gemm(build, bits, sentence):
    weights = pack_bits(np.ones((3, 10)))
    ones = np.ones(3, np.float32)
    values = {"B": bits, "W": weights, "scale": ones, "bias": ones}
    session = load_session(
        build(values, {"channels": 10}, operator="BinaryGemm", constants=("W", "scale", "bias"))
    )
    with pytest.raises(Exception, match="Status Message") as failure:
        session.run(None, {"B": bits})
    assert sentence in str(failure.value)


@pytest.mark.parametrize(
    ("bits", "change", "sentence"),
    [
        (np.zeros((1, 4, 4, 2), np.uint64), {}, "'B' has shape (1, 4, 4, 2)"),
        (np.zeros((1, 1, 4, 1), np.uint64), {}, "'B' holds images of 1 x 4, too small for the window"),
        (np.full((1, 4, 4, 1), 2**63, np.uint64), {}, "'B' has bits set beyond its 10 channels"),
        (None, {"ceil_mode": 2}, "'ceil_mode' holds 2"),
        (
            np.zeros((1, 1, 4, 1), np.uint64),
            {"ceil_mode": 1, "kernel_shape": [3, 2]},
            "'B' holds images of 1 x 4, too small for the window",
        ),
        (
            None,
            {"kernel_shape": [2**31 - 1] * 2, "strides": [2**31 - 1] * 2, "pads": [2**31 - 1] * 4},
            "'kernel_shape' makes a window of 2^31 taps or more",
        ),
    ],
)
def test_max_pool(build, bits, change, sentence):
    attributes = {
        "channels": 10,
        "kernel_shape": [2, 2],
        "strides": [2, 2],
        "pads": [0, 0, 0, 0],
        "dilations": [1, 1],
        "ceil_mode": 0,
    }
    example = np.zeros((1, 4, 4, 1), np.uint64) if bits is None else bits
    model = build({"B": example}, attributes | change, operator="BinaryMaxPool2d", constants=())
    with pytest.raises(Exception, match=r".") as failure:
        load_session(model).run(None, {"B": example})
    assert sentence in str(failure.value)


@pytest.mark.parametrize(
    ("shapes", "change", "sentence"),
    [
        ({"X": (1, 3, 8)}, {}, "'X' has shape (1, 3, 8)"),
        ({"X": (1, 4, 8, 8)}, {}, "'X' has shape (1, 4, 8, 8)"),
        ({"X": (1, 3, 1, 8)}, {}, "'X' holds images of 1 x 8, too small for the kernel and the window"),
        (
            {"X": (1, 3, 8, 1)},
            {"pads": [1, 0, 1, 0], "pool_kernel_shape": [3, 3], "pool_pads": [1, 1, 1, 1]},
            "'X' holds images of 8 x 1, too small for the kernel and the window",
        ),
        ({"W": (5, 3, 3, 2)}, {}, "'W' has shape (5, 3, 3, 2)"),
        ({"W": (0, 3, 3, 3), "bias": (0,)}, {}, "'W' has shape (0, 3, 3, 3)"),
        ({"bias": (4,)}, {}, "'bias' has shape (4)"),
        ({"slope": (6,)}, {}, "'slope' has shape (6)"),
        ({"threshold": (6,)}, {}, "'threshold' has shape (6)"),
        ({}, {"pool_pads": [0, 2, 0, 0]}, "'pool_pads' holds 2, which is not smaller than the window"),
        ({}, {"pool_strides": [0, 1]}, "'pool_strides' holds 0"),
        ({}, {"clip_min": float("nan")}, "'clip_min' is not a number"),
        (
            {},
            {"pads": [2**31 - 1] * 4, "pool_kernel_shape": [2**31 - 1] * 2, "pool_strides": [2**31 - 1] * 2},
            "too large with their padding",
        ),
    ],
)
@pytest.mark.parametrize("constants", [(), ("W", "bias", "slope", "threshold")])
def test_stem(build, shapes, change, sentence, constants, stem_attributes):
    usual = {"X": (1, 3, 8, 8), "W": (5, 3, 3, 3), "bias": (5,), "slope": (5,), "threshold": (5,)}
    values = {name: np.zeros(shape, np.float32) for name, shape in (usual | shapes).items()}
    model = build(values, stem_attributes | change, operator="StemConv2dPReluWithBits", constants=constants)
    with pytest.raises(Exception, match="StemConv2dPReluWithBits") as failure:
        load_session(model).run(None, {k: v for k, v in values.items() if k not in constants})
    assert sentence in str(failure.value)
