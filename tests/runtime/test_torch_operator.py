from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from dirnet_convert.errors import DirnetError
from dirnet_convert.runtime.torch_operator import binary_conv2d

SEED = 11
# channels, out channels, kernel, stride, padding (top, left, bottom, right), dilation, groups
GEOMETRIES = (
    (16, 16, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    (16, 32, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    (70, 66, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    (8, 8, (5, 3), (1, 2), (2, 1, 2, 1), (1, 1), 2),
    (6, 4, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 1),
    (5, 7, (2, 3), (2, 1), (0, 1, 1, 0), (1, 1), 1),
)


def _inputs(channels: int, out: int, kernel: tuple[int, int], groups: int) -> tuple[torch.Tensor, ...]:
    print(f"seed {SEED}")
    torch.manual_seed(SEED)
    x, threshold = torch.randn(3, channels, 9, 10), 0.3 * torch.randn(channels)
    scale = 2.0 ** torch.randint(-3, 1, (out, 1, 1, 1))
    return x, threshold, torch.randn(out, channels // groups, *kernel).sign() * scale


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("last", [False, True])
def test_equals_a_convolution_of_signs(geometry: tuple, last: bool) -> None:
    channels, out, kernel, stride, padding, dilation, groups = geometry
    x, threshold, weight = _inputs(channels, out, kernel, groups)
    x[0, 0, 0, 0], x[0, 1, 2, 3] = threshold[0], torch.nan
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    y = binary_conv2d(x, threshold, weight, stride, padding, dilation, groups, torch.float32)
    top, left, bottom, right = padding
    signs = torch.where(x >= threshold.view(-1, 1, 1), 1.0, -1.0)
    expected = functional.conv2d(
        functional.pad(signs, (left, right, top, bottom)), weight, None, stride, 0, dilation, groups
    )
    assert torch.equal(y, expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_many_images_of_another_type(threads: int) -> None:
    x, threshold, weight = _inputs(4, 5, (3, 3), 1)
    x = torch.randn(9, 4, 90, 90).to(torch.bfloat16)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = binary_conv2d(x, threshold, weight, (1, 1), (1, 1, 1, 1), (1, 1), 1, torch.bfloat16)
    finally:
        torch.set_num_threads(before)
    signs = torch.where(x >= threshold.view(-1, 1, 1), 1.0, -1.0)
    assert torch.equal(y, functional.conv2d(signs, weight, padding=1).to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_types_that_the_kernels_lack(dtype: torch.dtype) -> None:
    x, threshold, weight = _inputs(6, 5, (3, 3), 1)
    values = (x.to(dtype), threshold.to(dtype), weight.to(dtype))
    y = binary_conv2d(*values, (1, 1), (1, 1, 1, 1), (1, 1), 1, dtype)
    signs = torch.where(values[0].float() >= values[1].float().view(-1, 1, 1), 1.0, -1.0)
    assert torch.equal(y, functional.conv2d(signs, weight, padding=1).to(dtype))


def test_is_an_operator_that_compilers_may_trust() -> None:
    channels, out, kernel, stride, padding, dilation, groups = GEOMETRIES[1]
    values = (*_inputs(channels, out, kernel, groups), stride, padding, dilation, groups, torch.bfloat16)
    torch.library.opcheck(binary_conv2d, values)


def test_impossible_shapes_are_refused() -> None:
    x, threshold, weight = _inputs(6, 4, (3, 3), 2)
    with pytest.raises(DirnetError, match="shape is impossible"):
        binary_conv2d(x, threshold, weight, (1, 1), (1, 1, 1, 1), (1, 1), 5, torch.float32)
