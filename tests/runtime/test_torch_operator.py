from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from dirnet_convert.errors import DirnetError
from dirnet_convert.runtime.torch_operator import binary_conv2d, binary_conv2d_backward

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


def test_a_batch_without_images() -> None:
    channels, out, kernel, *geometry = GEOMETRIES[1]
    _, threshold, weight = _inputs(channels, out, kernel, 1)
    x = torch.empty(0, channels, 9, 9)
    # PyTorch gives no address for what has no elements.
    assert x.data_ptr() == 0
    y = torch.ops.dirnet.binary_conv2d(x, threshold, weight, *geometry, torch.float32)
    assert y.shape == (0, out, 5, 5)
    to_signs, to_weight = torch.ops.dirnet.binary_conv2d_backward(
        torch.empty_like(y), x, threshold, weight, *geometry
    )
    assert to_signs.shape == x.shape
    assert torch.equal(to_weight, torch.zeros_like(weight))


def test_is_an_operator_that_compilers_may_trust() -> None:
    channels, out, kernel, stride, padding, dilation, groups = GEOMETRIES[1]
    values = (*_inputs(channels, out, kernel, groups), stride, padding, dilation, groups, torch.bfloat16)
    torch.library.opcheck(binary_conv2d, values)


def test_impossible_shapes_are_refused() -> None:
    geometry = ((1, 1), (1, 1, 1, 1), (1, 1), 2)
    x, threshold, weight = _inputs(6, 3, (3, 3), 2)
    with pytest.raises(DirnetError, match="shape is impossible"):
        binary_conv2d(x, threshold, weight, *geometry, torch.float32)
    x, threshold, weight = _inputs(6, 4, (3, 3), 2)
    for operands in ((x, threshold[:1], weight), (x, threshold, weight[:, :2])):
        with pytest.raises(DirnetError, match="6 channels in 2 groups do not fit"):
            binary_conv2d(*operands, *geometry, torch.float32)
        with pytest.raises(DirnetError, match="6 channels in 2 groups do not fit"):
            binary_conv2d_backward(torch.ones(3, 4, 9, 10), *operands, *geometry)
    with pytest.raises(DirnetError, match=r"gradient is \(3, 4, 3, 3\); .* is \(3, 4, 9, 10\)"):
        binary_conv2d_backward(torch.ones(3, 4, 3, 3), x, threshold, weight, *geometry)


def _torch_gradients(
    gradient: torch.Tensor, x: torch.Tensor, threshold: torch.Tensor, weight: torch.Tensor, geometry: tuple
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of signs and weights in double precision."""
    *_, stride, (top, left, bottom, right), dilation, groups = geometry
    signs = torch.where(x >= threshold.view(-1, 1, 1), 1.0, -1.0).double().requires_grad_()
    weight = weight.double().requires_grad_()
    padded = functional.pad(signs, (left, right, top, bottom))
    functional.conv2d(padded, weight, None, stride, 0, dilation, groups).backward(gradient.double())
    return signs.grad, weight.grad


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_gradients_are_those_of_a_convolution_but_for_rounding(geometry: tuple, dtype: torch.dtype) -> None:
    channels, out, kernel, stride, padding, dilation, groups = geometry
    x, threshold, weight = _inputs(channels, out, kernel, groups)
    x[0, 0, 0, 0], x[0, 1, 2, 3] = threshold[0], torch.nan
    y = binary_conv2d(x, threshold, weight, stride, padding, dilation, groups, torch.float32)
    gradient = torch.randn_like(y).to(dtype)
    to_signs, to_weight = binary_conv2d_backward(
        gradient, x, threshold, weight, stride, padding, dilation, groups
    )
    assert to_signs.shape == x.shape and to_signs.dtype == dtype
    assert to_weight.shape == weight.shape and to_weight.dtype == torch.float32
    signs_wanted, weight_wanted = _torch_gradients(gradient, x, threshold, weight, geometry)
    rounding = 4e-3 if dtype is torch.bfloat16 else 1e-4
    for got, wanted, bound in ((to_signs, signs_wanted, rounding), (to_weight, weight_wanted, 1e-4)):
        assert (got.double() - wanted).norm() <= bound * wanted.norm()


def test_gradients_of_whole_numbers_are_exact_for_any_threads() -> None:
    geometry = GEOMETRIES[1]
    x, threshold, weight = _inputs(16, 32, (3, 3), 1)
    x = torch.randn(40, 16, 20, 20)
    gradient = torch.randint(-32767, 32768, (40, 32, 10, 10)).float()
    # The largest magnitude, which becomes 32,767, in each channel of each image.
    gradient[:, :, 0, 0] = 32767
    weight = weight.sign()
    wanted = _torch_gradients(gradient, x, threshold, weight, geometry)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            to_signs, to_weight = binary_conv2d_backward(gradient, x, threshold, weight, *geometry[3:])
            assert torch.equal(to_signs, wanted[0].float())
            # Blocks of images are added up in float32.
            torch.testing.assert_close(to_weight, wanted[1].float(), rtol=1e-6, atol=1.0)
    finally:
        torch.set_num_threads(before)


def test_what_is_not_finite_is_not_rounded_away() -> None:
    x, threshold, weight = _inputs(16, 16, (3, 3), 1)
    for value in (torch.nan, torch.inf):
        gradient = torch.randn(3, 16, 9, 10)
        gradient[1, 2, 3, 4] = value
        to_signs, to_weight = binary_conv2d_backward(gradient, x, threshold, weight, *GEOMETRIES[0][3:])
        assert to_signs.isnan().any() and to_weight[2].isnan().all() and to_weight[3].isfinite().all()


def test_gradients_are_an_operator_that_compilers_may_trust() -> None:
    geometry = GEOMETRIES[1]
    x, threshold, weight = _inputs(16, 32, (3, 3), 1)
    torch.library.opcheck(
        binary_conv2d_backward, (torch.randn(3, 32, 5, 5), x, threshold, weight, *geometry[3:])
    )


def test_gradients_of_images_too_large_for_whole_numbers_are_refused() -> None:
    x, threshold, weight = _inputs(1, 1, (1, 1), 1)
    x = torch.randn(1, 1, 300, 300)
    with pytest.raises(DirnetError, match="shape is impossible"):
        binary_conv2d_backward(x, x, threshold, weight, (1, 1), (0, 0, 0, 0), (1, 1), 1)
