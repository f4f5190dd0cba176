"""The tail of a layer in training, activation(batch norm(x) + residual), as an operator for PyTorch on
processors."""

from __future__ import annotations

import ctypes
import enum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dirnet_convert.errors import DirnetError
from dirnet_convert.runtime.kernels import checked_status
from dirnet_convert.runtime.torch_memory import TYPES, channels_last, last, library_and_isa, thread_team


class TailActivation(enum.IntEnum):
    """What ends a tail, by its number in the C interface."""

    NONE = 0
    PRELU = 1
    CLIP = 2


class TailInputs(NamedTuple):
    """What norm_tail takes, in this order.

    ``x`` and ``residual`` are (N, C, H, W), of one type, float32 or bfloat16; gain, offset, shift and slope
    are (C,), float32; the slope is PRELU's, the bounds are CLIP's.
    """

    x: Tensor
    residual: Tensor | None
    gain: Tensor
    offset: Tensor
    shift: Tensor | None
    slope: Tensor | None
    epsilon: float
    activation: int
    clip_min: float
    clip_max: float


# TailInputs, as PyTorch writes it.
_INPUTS = (
    "Tensor x, Tensor? residual, Tensor gain, Tensor offset, Tensor? shift, Tensor? slope, float epsilon, "
    "int activation, float clip_min, float clip_max"
)
_TENSORS = 6


class _Tail(ctypes.Structure):
    """dirnet_tail of the C interface."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("pixels", "channels")),
        *((name, ctypes.c_int) for name in ("type", "activation")),
        *((name, ctypes.c_void_p) for name in ("x", "residual", "gain", "offset", "shift", "slope")),
        *((name, ctypes.c_float) for name in ("epsilon", "clip_min", "clip_max")),
    )


@torch.library.custom_op(
    "dirnet::norm_tail",
    mutates_args=(),
    device_types="cpu",
    schema=f"({_INPUTS}) -> (Tensor, Tensor, Tensor)",
)
def norm_tail(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return activation((x - mean) * gain / sqrt(variance + epsilon) + offset + residual + shift), mean and
    variance; the inputs are TailInputs.

    The result is like x, in the channels-last layout; mean and (biased) variance (C,) are those of each
    channel.

    Raises:
        DirnetError: the compiled library is missing, or types or shapes are not TailInputs'.
    """
    tail, kept = _described(TailInputs(*inputs))
    gain = inputs[2]
    y, mean, variance = torch.empty_like(kept[0]), torch.empty_like(gain), torch.empty_like(gain)
    library, isa = library_and_isa()
    status = library.dirnet_norm_tail(
        *(isa, ctypes.byref(tail), y.data_ptr(), mean.data_ptr(), variance.data_ptr(), *thread_team())
    )
    checked_status(status)
    return channels_last(y), mean, variance


@norm_tail.register_fake
def _(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    tail = TailInputs(*inputs)
    return _like(tail.x), torch.empty_like(tail.gain), torch.empty_like(tail.gain)


@torch.library.custom_op(
    "dirnet::norm_tail_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor y_gradient, Tensor mean, Tensor variance, {_INPUTS}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def norm_tail_backward(
    y_gradient: Tensor, mean: Tensor, variance: Tensor, *inputs: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of norm_tail's x, residual, gain, offset (and shift) and slope, from that of its
    first result; an empty tensor stands for what is not there.

    Raises:
        DirnetError: the compiled library is missing, or types or shapes are not those of norm_tail's results.
    """
    _, residual, gain, _, _, slope, *_ = inputs
    tail, kept = _described(TailInputs(*inputs))
    if y_gradient.shape != inputs[0].shape or any(
        (value.dtype, value.shape) != (gain.dtype, gain.shape) for value in (mean, variance)
    ):
        raise DirnetError("norm_tail's gradient, mean and variance are not of its results' types and shapes.")
    mean, variance = mean.contiguous(), variance.contiguous()
    to_y = last(y_gradient.to(kept[0].dtype))
    to_x = torch.empty_like(to_y)
    to_residual = None if residual is None else torch.empty_like(to_y)
    to_gain, to_offset = torch.empty_like(gain), torch.empty_like(gain)
    to_slope = None if slope is None else torch.empty_like(gain)
    library, isa = library_and_isa()
    status = library.dirnet_norm_tail_backward(
        *(isa, ctypes.byref(tail), mean.data_ptr(), variance.data_ptr(), to_y.data_ptr()),
        *(_address(value) for value in (to_x, to_residual, to_gain, to_offset, to_slope)),
        *thread_team(),
    )
    checked_status(status)
    to_residual = to_x.new_empty(0) if to_residual is None else channels_last(to_residual)
    return (
        channels_last(to_x),
        to_residual,
        to_gain,
        to_offset,
        gain.new_empty(0) if slope is None else to_slope,
    )


@norm_tail_backward.register_fake
def _(
    y_gradient: Tensor, mean: Tensor, variance: Tensor, *inputs: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    x, residual, gain, _, _, slope, *_ = inputs
    to_residual = x.new_empty(0) if residual is None else _like(x)
    to_slope = gain.new_empty(0) if slope is None else torch.empty_like(gain)
    return _like(x), to_residual, torch.empty_like(gain), torch.empty_like(gain), to_slope


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, mean, variance = output
    ctx.save_for_backward(mean, variance, *inputs[:_TENSORS])
    ctx.numbers = inputs[_TENSORS:]


def _gradients(ctx: Any, y_gradient: Tensor, *of_statistics: Tensor | None) -> tuple[Tensor | None, ...]:
    mean, variance, *tensors = ctx.saved_tensors
    inputs = TailInputs(*tensors, *ctx.numbers)
    to_x, to_residual, to_gain, to_offset, to_slope = norm_tail_backward(y_gradient, mean, variance, *inputs)
    # A copy for the shift: whoever scales one gradient in place must not scale the other one.
    return (
        *(to_x, None if inputs.residual is None else to_residual, to_gain, to_offset),
        *(None if inputs.shift is None else to_offset.clone(), None if inputs.slope is None else to_slope),
        *(None,) * len(ctx.numbers),
    )


norm_tail.register_autograd(_gradients, setup_context=_keep)


def _like(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    return channels_last(x.new_empty(batch, height, width, channels))


def _described(inputs: TailInputs) -> tuple[_Tail, list[Tensor]]:
    """Return the C interface's description, and the tensors whose memory it names: the first is x's."""
    x, residual, *vectors = inputs[:_TENSORS]
    like_x = residual is None or (residual.shape == x.shape and residual.dtype == x.dtype)
    per_channel = (torch.float32, x.shape[1:2])
    if (
        x.dtype not in TYPES
        or not like_x
        or any((v.dtype, v.shape) != per_channel for v in vectors if v is not None)
    ):
        raise DirnetError("norm_tail's tensors are not of the types and shapes that it takes.")
    values = [None if value is None else last(value) for value in (x, residual)]
    values += [None if vector is None else vector.contiguous() for vector in vectors]
    pixels, channels = x.numel() // x.shape[1], x.shape[1]
    addresses = (_address(value) for value in values)
    tail = _Tail(
        *(pixels, channels, TYPES[x.dtype], inputs.activation, *addresses),
        *(inputs.epsilon, inputs.clip_min, inputs.clip_max),
    )
    return tail, [value for value in values if value is not None]


def _address(value: Tensor | None) -> int | None:
    return None if value is None else value.data_ptr()
