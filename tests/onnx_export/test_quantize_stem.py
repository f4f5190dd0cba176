"""The stem's weights and image in bytes: steps, ranges, and how far the result may be from the floats'."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from export_networks import build, images

from dirnet_convert.onnx_export.exporter import binary_model
from dirnet_convert.onnx_export.operators import OPERATORS
from dirnet_convert.onnx_export.quantize_stem import image_quantization, quantize_stems, quantize_weight

SEED = 3


def test_zero_is_a_byte_and_the_ends_are_reached() -> None:
    images = np.random.default_rng(SEED).uniform(-1.7, 2.3, (2, 3, 4, 4)).astype(np.float32)
    scale, zero_point = image_quantization(images)
    q = np.clip(np.rint(images / scale) + zero_point, 0, 255)
    assert q.min() == 0 and q.max() == 255
    assert np.abs((q - zero_point) * scale - images).max() <= 0.51 * scale


@pytest.mark.parametrize(("images", "zero_point"), [([0.5, 4.0], 0), ([-3.0, -1.0], 255), ([0.0], 0)])
def test_ranges_on_one_side_of_zero(images: list[float], zero_point: int) -> None:
    scale, found = image_quantization(np.array(images, np.float32))
    assert found == zero_point and scale > 0


def test_each_channel_of_weights_has_its_step() -> None:
    weight = np.random.default_rng(SEED).standard_normal((4, 3, 3, 3)).astype(np.float32)
    weight[1] *= 1000
    weight[2] = 0
    quantized, step = quantize_weight(weight)
    assert np.abs(quantized).max(axis=(1, 2, 3)).tolist() == [64, 64, 0, 64]
    error = np.abs(quantized * step[:, None, None, None] - weight).max(axis=(1, 2, 3))
    assert (error <= 0.51 * step).all()


def test_the_stem_computes_what_the_floats_do_but_for_rounding() -> None:
    torch.manual_seed(SEED)
    name = "resnet_per_convolution"
    model, _ = binary_model(build(name), images(name)[:1])
    pixels = images(name, 4).numpy()
    was = next(node for node in model.graph.node if node.op_type.startswith("StemConv2d"))
    before = dict(zip(OPERATORS[was.op_type].input_names(), was.input, strict=True))
    held = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    float_inputs = {key: held.get(value, pixels) for key, value in before.items()}
    float_attributes = {a.name: onnx.helper.get_attribute_value(a) for a in was.attribute}
    assert quantize_stems(model, pixels) == (was.name,)
    onnx.checker.check_model(model)
    after = dict(zip(OPERATORS[was.op_type].input_names(), was.input, strict=True))
    held = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    assert before["W"] not in held
    inputs = {key: held.get(value, pixels) for key, value in after.items()}
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in was.attribute}
    (exact,) = OPERATORS["StemConv2d"].reference(float_inputs, float_attributes)
    (coarse,) = OPERATORS["StemConv2dInt8"].reference(inputs, attributes)
    assert 0 < np.abs(coarse - exact).max() < 0.02 * np.abs(exact).max()
    assert quantize_stems(model, pixels) == ()
