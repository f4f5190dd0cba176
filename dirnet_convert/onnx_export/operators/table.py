"""The operators of the domain ``ai.dirnet``, version 1: one spec each."""

from __future__ import annotations

import itertools

from dirnet_convert.onnx_export.operators import body, reference
from dirnet_convert.onnx_export.operators.spec import (
    AttributeKind,
    AttributeSpec,
    ElementType,
    OperatorSpec,
    TensorSpec,
)

_CHANNELS = AttributeSpec("channels", AttributeKind.INT)
_WINDOW = (
    AttributeSpec("kernel_shape", AttributeKind.INTS, 2),
    AttributeSpec("strides", AttributeKind.INTS, 2),
    AttributeSpec("pads", AttributeKind.INTS, 4),
    AttributeSpec("dilations", AttributeKind.INTS, 2),
)
_CONV = (_CHANNELS, *_WINDOW, AttributeSpec("group", AttributeKind.INT))
_ACT = (AttributeSpec("clip_min", AttributeKind.FLOAT), AttributeSpec("clip_max", AttributeKind.FLOAT))

_CONV_INPUTS = (
    TensorSpec("B", ElementType.UINT64, "(N, H, W, ceil(channels/64))"),
    TensorSpec("W", ElementType.UINT64, "(O, kh, kw, ceil(channels/group/64))"),
    TensorSpec("scale", ElementType.FLOAT32, "(O)"),
    TensorSpec("bias", ElementType.FLOAT32, "(O)"),
)
_SLOPE = TensorSpec("slope", ElementType.FLOAT32, "(O)")
_RESIDUAL = TensorSpec("residual", ElementType.FLOAT32, "(N, Ho, Wo, O)")
_THRESHOLD = TensorSpec("threshold", ElementType.FLOAT32, "(O)")
_Y = TensorSpec("Y", ElementType.FLOAT32, "(N, Ho, Wo, O)")
_BITS = TensorSpec("Bo", ElementType.UINT64, "(N, Ho, Wo, ceil(O/64))")

_OUTPUTS = {
    body.Output.FLOAT: ("", (_Y,), reference.conv_act, "its value as floats"),
    body.Output.BITS: ("ToBits", (_BITS,), reference.conv_act_to_bits, "the bits of value >= threshold"),
    body.Output.BOTH: (
        "WithBits",
        (_Y, _BITS),
        reference.conv_act_with_bits,
        "its value as floats and the bits of value >= threshold",
    ),
}


def _activated_convolution(residual: body.Residual, output: body.Output) -> OperatorSpec:
    suffix, outputs, meaning, result = _OUTPUTS[output]
    added = residual is body.Residual.ADDED
    inputs = (*_CONV_INPUTS, _SLOPE)
    inputs += (_RESIDUAL,) if added else ()
    inputs += () if output is body.Output.FLOAT else (_THRESHOLD,)
    return OperatorSpec(
        name=f"BinaryConv2d{'Add' if added else ''}Act{suffix}",
        summary=f"Binary convolution, scale, bias,{' residual,' if added else ''} clip and PReLU: {result}.",
        inputs=inputs,
        outputs=outputs,
        attributes=_CONV + _ACT,
        reference=meaning,
        build_body=lambda: body.conv_act(residual, output),
    )


_STEM_MEANINGS = {
    body.Output.FLOAT: reference.stem_conv2d,
    body.Output.BITS: reference.stem_conv2d_to_bits,
    body.Output.BOTH: reference.stem_conv2d_with_bits,
}
_STEM = (
    *_WINDOW[:3],
    AttributeSpec("pool_kernel_shape", AttributeKind.INTS, 2),
    AttributeSpec("pool_strides", AttributeKind.INTS, 2),
    AttributeSpec("pool_pads", AttributeKind.INTS, 4),
)


_IMAGE = TensorSpec("X", ElementType.FLOAT32, "(N, C, H, W)")
_BIAS = TensorSpec("bias", ElementType.FLOAT32, "(O)")
_STEM_INPUTS = {
    body.Stem.FLOAT: (_IMAGE, TensorSpec("W", ElementType.FLOAT32, "(O, C, kh, kw)"), _BIAS),
    body.Stem.INT8: (
        _IMAGE,
        TensorSpec("W", ElementType.INT8, "(O, C, kh, kw)"),
        TensorSpec("scale", ElementType.FLOAT32, "(O)"),
        _BIAS,
    ),
}
_STEM_SUMMARIES = {
    body.Stem.FLOAT: ("StemConv2d", "Float convolution of an image"),
    body.Stem.INT8: ("StemConv2dInt8", "Image to bytes, its convolution with bytes, scale"),
}
_STEM_ATTRIBUTES = {
    body.Stem.FLOAT: _STEM + _ACT,
    body.Stem.INT8: (
        *_STEM,
        *_ACT,
        AttributeSpec("input_scale", AttributeKind.FLOAT),
        AttributeSpec("input_zero_point", AttributeKind.INT),
    ),
}


def _stem(stem: body.Stem, activation: body.StemActivation, output: body.Output) -> OperatorSpec:
    suffix, outputs, _, result = _OUTPUTS[output]
    name, summary = _STEM_SUMMARIES[stem]
    has_slope = activation is body.StemActivation.PRELU
    inputs = _STEM_INPUTS[stem] + ((_SLOPE,) if has_slope else ())
    return OperatorSpec(
        name=f"{name}{'PRelu' if has_slope else ''}{suffix}",
        summary=f"{summary}, bias, {activation.value}, max pooling: {result}.",
        inputs=inputs + (() if output is body.Output.FLOAT else (_THRESHOLD,)),
        outputs=outputs,
        attributes=_STEM_ATTRIBUTES[stem],
        reference=_STEM_MEANINGS[output],
        build_body=lambda: body.stem_conv2d(stem, activation, output),
    )


_SPECS = (
    OperatorSpec(
        name="Binarize",
        summary="Floats to bits: 1 where X >= threshold, per channel.",
        inputs=(
            TensorSpec("X", ElementType.FLOAT32, "(..., channels)"),
            TensorSpec("threshold", ElementType.FLOAT32, "(channels)"),
        ),
        outputs=(TensorSpec("B", ElementType.UINT64, "(..., ceil(channels/64))"),),
        attributes=(_CHANNELS,),
        reference=reference.binarize,
        build_body=body.binarize,
    ),
    OperatorSpec(
        name="BinaryConv2d",
        summary="Binary convolution, scale and bias: its value as floats.",
        inputs=_CONV_INPUTS,
        outputs=(_Y,),
        attributes=_CONV,
        reference=reference.binary_conv2d,
        build_body=body.binary_conv2d,
    ),
    *(_activated_convolution(residual, output) for output in body.Output for residual in body.Residual),
    OperatorSpec(
        name="BinaryMaxPool2d",
        summary="Max pooling of bits: the OR of each window, padded taps left out.",
        inputs=(TensorSpec("B", ElementType.UINT64, "(N, H, W, ceil(channels/64))"),),
        outputs=(TensorSpec("Bo", ElementType.UINT64, "(N, Ho, Wo, ceil(channels/64))"),),
        attributes=(_CHANNELS, *_WINDOW, AttributeSpec("ceil_mode", AttributeKind.INT)),
        reference=reference.binary_max_pool2d,
        build_body=body.binary_max_pool2d,
    ),
    OperatorSpec(
        name="BinaryGemm",
        summary="Binary matrix product, scale and bias.",
        inputs=(
            TensorSpec("B", ElementType.UINT64, "(..., ceil(channels/64))"),
            TensorSpec("W", ElementType.UINT64, "(O, ceil(channels/64))"),
            TensorSpec("scale", ElementType.FLOAT32, "(O)"),
            TensorSpec("bias", ElementType.FLOAT32, "(O)"),
        ),
        outputs=(TensorSpec("Y", ElementType.FLOAT32, "(..., O)"),),
        attributes=(_CHANNELS,),
        reference=reference.binary_gemm,
        build_body=body.binary_gemm,
    ),
    *(
        _stem(stem, activation, output)
        for stem, activation, output in itertools.product(body.Stem, body.StemActivation, body.Output)
    ),
)

OPERATORS: dict[str, OperatorSpec] = {spec.name: spec for spec in _SPECS}
