"""The stem in INT8: what the operator for floats holds, as bytes for the operator of bytes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from dirnet_convert.onnx_export.operators import DOMAIN
from dirnet_convert.runtime.int8 import INT8_STEM

FLOAT_STEM = "StemConv2d"
# Not 127: runtimes that add two products of bytes in 16 bits, as x86 without VNNI does, would saturate.
_LARGEST_WEIGHT = 64
_BYTES = 255


def quantize_stems(model: onnx.ModelProto, images: np.ndarray) -> tuple[str, ...]:
    """Give every stem of ``model`` that reads the image weights of bytes; return their nodes' names.

    The image's range is that of ``images`` (N, C, H, W); weights have a scale per output channel and are
    symmetric, as ONNX Runtime's static quantization makes them.
    """
    (image,) = (value.name for value in model.graph.input)
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    names = []
    for node in model.graph.node:
        if not _is_float_stem(node) or node.input[0] != image or node.input[1] not in held:
            continue
        weight = numpy_helper.to_array(held[node.input[1]])
        input_scale, zero_point = image_quantization(images)
        quantized, weight_scale = quantize_weight(weight)
        # float(sum) * scale[o], with scale[o] = the image's step times the weights'.
        scale = (np.float32(input_scale) * weight_scale).astype(np.float32)
        added = [f"{node.name}/weight_int8", f"{node.name}/scale"]
        for name, array in zip(added, (quantized, scale), strict=True):
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        node.input[:] = [node.input[0], *added, *node.input[2:]]
        node.op_type = INT8_STEM + node.op_type.removeprefix(FLOAT_STEM)
        node.attribute.append(onnx.helper.make_attribute("input_scale", float(input_scale)))
        node.attribute.append(onnx.helper.make_attribute("input_zero_point", zero_point))
        names.append(node.name)
    _drop_unread(model)
    return tuple(names)


def image_quantization(images: np.ndarray) -> tuple[np.float32, int]:
    """Return scale and zero point of bytes that cover the range of ``images`` and hold 0 exactly.

    Source: ONNX's QuantizeLinear, unsigned: scale = (high - low) / 255, zero_point = round(-low / scale).

    >>> image_quantization(np.array([-1.0, 0.5, 4.1], np.float32))
    (np.float32(0.02), 50)
    """
    low, high = min(float(images.min()), 0.0), max(float(images.max()), 0.0)
    scale = np.float32((high - low) / _BYTES) if high > low else np.float32(1.0)
    return scale, int(np.clip(np.rint(-low / scale), 0, _BYTES))


def quantize_weight(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``weight`` (O, C, kh, kw) as int8 and the step (O) of each output channel.

    Source: ONNX Runtime's symmetric form per channel with a reduced range: step = max |w| / 64, so that both
    signs reach as far.
    """
    most = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    step = np.where(most > 0, most / _LARGEST_WEIGHT, 1.0).astype(np.float32)
    quantized = np.rint(weight / step[:, None, None, None])
    return np.clip(quantized, -_LARGEST_WEIGHT, _LARGEST_WEIGHT).astype(np.int8), step


def _is_float_stem(node: onnx.NodeProto) -> bool:
    return (
        node.domain == DOMAIN
        and node.op_type.startswith(FLOAT_STEM)
        and not node.op_type.startswith(INT8_STEM)
    )


def _drop_unread(model: onnx.ModelProto) -> None:
    read = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
