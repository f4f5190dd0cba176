"""The numpy reference and PyTorch's own convolution of +1 and -1 give the same integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dirnet_convert.onnx_export.operators import unpack_bits
from dirnet_convert.onnx_export.operators.reference import binary_max_pool2d, convolution_dot


@pytest.mark.parametrize("seed", range(60))
def test_dot_products_equal_torch_convolution(draw_case, seed):
    case = draw_case("BinaryConv2d", seed)
    attributes = case.attributes
    group = attributes["group"]
    x = torch.from_numpy(unpack_bits(case.inputs["B"], attributes["channels"])).permute(0, 3, 1, 2)
    w = torch.from_numpy(unpack_bits(case.inputs["W"], attributes["channels"] // group)).permute(0, 3, 1, 2)
    top, left, bottom, right = attributes["pads"]
    # Zeros around +1 and -1: the padding that the network was trained with.
    padded = torch.nn.functional.pad(x, (left, right, top, bottom))
    wanted = torch.nn.functional.conv2d(
        padded.double(),
        w.double(),
        stride=attributes["strides"],
        dilation=attributes["dilations"],
        groups=group,
    )
    found = convolution_dot(case.inputs, attributes)
    assert np.array_equal(found, wanted.permute(0, 2, 3, 1).numpy()), str(case)


@pytest.mark.parametrize("seed", range(40))
def test_max_pooling_of_bits_equals_torch(draw_case, seed):
    case = draw_case("BinaryMaxPool2d", seed)
    attributes = case.attributes
    kernel_h, kernel_w = attributes["kernel_shape"]
    # PyTorch pads both sides alike and by half the window at most.
    pads = [min(attributes["pads"][0], kernel_h // 2), min(attributes["pads"][1], kernel_w // 2)]
    x = torch.from_numpy(unpack_bits(case.inputs["B"], attributes["channels"])).permute(0, 3, 1, 2)
    spans = [d * (k - 1) + 1 for d, k in zip(attributes["dilations"], (kernel_h, kernel_w), strict=True)]
    rooms = [size + 2 * pad - span for size, pad, span in zip(x.shape[2:], pads, spans, strict=True)]
    if attributes["ceil_mode"]:
        rooms = [room + stride - 1 for room, stride in zip(rooms, attributes["strides"], strict=True)]
    if min(rooms) < 0:
        pytest.skip("the window does not fit with symmetric padding")
    if x.shape[0] == 0:
        pytest.skip("PyTorch pools no empty batch")
    wanted = torch.nn.functional.max_pool2d(
        x,
        (kernel_h, kernel_w),
        attributes["strides"],
        pads,
        attributes["dilations"],
        bool(attributes["ceil_mode"]),
    )
    (found,) = binary_max_pool2d(case.inputs, {**attributes, "pads": [*pads, *pads]})
    pooled = unpack_bits(found, attributes["channels"])
    # A window that holds padding alone is -infinity to PyTorch and -1 here.
    assert np.array_equal(pooled, wanted.permute(0, 2, 3, 1).clamp(min=-1).numpy()), str(case)
