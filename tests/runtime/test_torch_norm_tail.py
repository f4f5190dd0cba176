from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dirnet_convert.errors import DirnetError
from dirnet_convert.runtime.torch_norm_tail import TailActivation, norm_tail, norm_tail_backward

SEED = 5
EPSILON = 1e-3
CHANNELS = 19


def _values(type: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    print(f"seed {SEED}")
    torch.manual_seed(SEED)
    x, residual = (torch.randn(4, CHANNELS, 5, 6).to(type) for _ in range(2))
    return x, residual, *(torch.randn(CHANNELS) for _ in range(4))


def _apart(activation: Callable[[Tensor], Tensor], values: tuple[Tensor | None, ...]) -> Tensor:
    x, residual, gain, offset, shift, _ = values
    v = functional.batch_norm(x.float(), None, None, gain, offset, training=True, eps=EPSILON)
    if residual is not None:
        v = v + residual.float()
    if shift is not None:
        v = v + shift.view(-1, 1, 1)
    return activation(v)


@pytest.mark.parametrize("type", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", TailActivation)
@pytest.mark.parametrize("whole", [False, True])
def test_equals_its_parts(type: torch.dtype, last: bool, kind: TailActivation, whole: bool) -> None:
    x, residual, gain, offset, shift, slope = _values(type)
    if last:
        x, residual = (value.contiguous(memory_format=torch.channels_last) for value in (x, residual))
    values: tuple[Tensor | None, ...] = (
        *(x, residual if whole else None, gain, offset),
        *(shift if whole else None, slope if kind is TailActivation.PRELU else None),
    )
    ours = tuple(None if value is None else value.clone().requires_grad_() for value in values)
    theirs = tuple(None if value is None else value.clone().requires_grad_() for value in values)
    y, mean, variance = norm_tail(*ours, EPSILON, int(kind), -0.5, 0.75)
    expected = _apart(
        {
            TailActivation.NONE: lambda v: v,
            TailActivation.PRELU: lambda v: functional.prelu(v, theirs[5]),
            TailActivation.CLIP: lambda v: v.clamp(-0.5, 0.75),
        }[kind],
        theirs,
    )
    to_y = torch.randn_like(expected)
    y.backward(to_y.to(type))
    expected.backward(to_y.to(type).float())
    bound = 1e-4 if type is torch.float32 else 0.02
    assert y.dtype == type and y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.float(), expected, rtol=bound, atol=bound)
    torch.testing.assert_close(mean, x.float().mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(variance, x.float().var((0, 2, 3), correction=0), rtol=1e-5, atol=1e-5)
    for ours_one, theirs_one in zip(ours, theirs, strict=True):
        if ours_one is not None:
            torch.testing.assert_close(
                ours_one.grad.float(), theirs_one.grad.float(), rtol=bound, atol=5 * bound
            )


@pytest.mark.parametrize("kind", [TailActivation.PRELU, TailActivation.CLIP])
def test_what_is_not_finite_goes_where_it_goes_in_pytorch(kind: TailActivation) -> None:
    values = _values()
    values[1][0, 1, 2, 3], values[1][1, 2, 3, 4] = torch.inf, -torch.inf
    if kind is TailActivation.PRELU:  # of a clipped NaN PyTorch's own loops give one gradient or the other
        values[1][2, 3, 4, 5] = torch.nan
    else:
        values = (*values[:5], None)
    ours, theirs = (
        [None if value is None else value.clone().requires_grad_() for value in values] for _ in range(2)
    )
    y, *_ = norm_tail(*ours, EPSILON, int(kind), -0.5, 0.75)
    clip = nn.Hardtanh(-0.5, 0.75)
    expected = _apart(clip if theirs[5] is None else lambda v: functional.prelu(v, theirs[5]), tuple(theirs))
    to_y = torch.randn_like(expected)
    y.backward(to_y)
    expected.backward(to_y)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
    for ours_one, theirs_one in zip(ours, theirs, strict=True):
        if ours_one is not None:
            torch.testing.assert_close(ours_one.grad, theirs_one.grad, rtol=1e-3, atol=1e-3, equal_nan=True)


def test_is_an_operator_that_compilers_may_trust() -> None:
    values = tuple(value.requires_grad_() for value in _values())
    torch.library.opcheck(norm_tail, (*values, EPSILON, int(TailActivation.PRELU), 0.0, 0.0))
    x, _, gain, offset, *_ = values
    torch.library.opcheck(norm_tail, (x, None, gain, offset, None, None, EPSILON, 2, -1.0, 1.0))


def test_threads_change_nothing() -> None:
    values = tuple(value.requires_grad_() for value in _values())
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            y, *_ = norm_tail(*values, EPSILON, int(TailActivation.PRELU), 0.0, 0.0)
            results.append((y, *torch.autograd.grad(y.square().sum(), values)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_gradients_of_shift_and_offset_are_apart() -> None:
    values = tuple(value.requires_grad_() for value in _values())
    y, *_ = norm_tail(*values, EPSILON, int(TailActivation.PRELU), 0.0, 0.0)
    y.sum().backward()
    offset, shift = values[3], values[4]
    assert torch.equal(offset.grad, shift.grad)
    offset.grad.zero_()
    assert shift.grad.any()


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (0, lambda x: x.double()),
        (1, lambda residual: residual.to(torch.bfloat16)),
        (1, lambda residual: residual[:1]),
        (2, lambda gain: gain.to(torch.bfloat16)),
        (4, lambda shift: shift[:-1]),
    ],
)
def test_other_types_and_shapes_are_refused(place: int, change: Callable[[Tensor], Tensor]) -> None:
    values = list(_values())
    values[place] = change(values[place])
    with pytest.raises(DirnetError, match="types and shapes"):
        norm_tail(*values, EPSILON, int(TailActivation.PRELU), 0.0, 0.0)


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (0, lambda gradient: gradient[:1]),
        (1, lambda mean: mean[:-1]),
        (2, lambda variance: variance.double()),
    ],
)
def test_what_is_no_result_of_the_operator_is_refused(place: int, change: Callable[[Tensor], Tensor]) -> None:
    values = (*_values(), EPSILON, int(TailActivation.PRELU), 0.0, 0.0)
    results = [value.detach() for value in norm_tail(*values)]
    results[place] = change(results[place])
    with pytest.raises(DirnetError, match="gradient, mean and variance"):
        norm_tail_backward(*results, *values)


def test_prelu_without_slopes_is_refused() -> None:
    x, _, gain, offset, *_ = _values()
    with pytest.raises(DirnetError, match="impossible"):
        norm_tail(x, None, gain, offset, None, None, EPSILON, int(TailActivation.PRELU), 0.0, 0.0)
