"""ONNX Runtime's static quantization: weights and activations in bytes, calibrated on real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dirnet_convert.quiet import errors_alone
from dirnet_convert.recipe import Rest
from dirnet_convert.runtime.model_file import read_model

if TYPE_CHECKING:
    import onnx

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
INT8_STEM = "StemConv2dInt8"


@dataclass(frozen=True)
class Int8Choice:
    """Which nodes are quantized, all that ONNX Runtime knows where empty, and which outputs stay float."""

    nodes: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    float_outputs: tuple[str, ...] = ()


def quantize_static(model: Path, output: Path, images: np.ndarray, choice: Int8Choice | None = None) -> None:
    """Write ``model`` quantized to INT8 to ``output``, calibrated on ``images`` (N, C, H, W) float32.

    QuantizeLinear/DequantizeLinear pairs, one scale per output channel, uint8 activations and int8 weights:
    the fastest of ONNX Runtime's forms on x86 with VNNI, and the form that it recommends there.

    Weights are -64 to 64: x86 without VNNI adds two products of bytes in 16 bits, which saturate beyond
    32,767. 2 * 255 * 127 is more than that, 2 * 255 * 64 is not, and a file is for any processor.
    """
    from onnxruntime import quantization

    chosen = choice or Int8Choice()
    # The quantizer logs, by the root, advice about steps that the callers have taken.
    with errors_alone(None):
        quantization.quantize_static(
            str(model),
            str(output),
            _reader(model, images),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=list(chosen.operators),
            nodes_to_quantize=list(chosen.nodes),
            nodes_to_exclude=list(chosen.excluded),
            extra_options={"OpTypesToExcludeOutputQuantization": list(chosen.float_outputs)},
        )


def rest_of(model: onnx.ModelProto) -> Rest:
    """Return how the layers of ``model`` that are not binary are stored."""
    quantized = any(
        node.op_type in _QUANTIZERS or node.op_type.startswith(INT8_STEM) for node in model.graph.node
    )
    return Rest.INT8 if quantized else Rest.FLOAT


def _reader(model: Path, images: np.ndarray) -> object:
    from onnxruntime.quantization import CalibrationDataReader

    entry = read_model(model).graph.input[0]
    batch = entry.type.tensor_type.shape.dim[0].dim_value or 1
    parts: Sequence[np.ndarray] = [images[k : k + batch] for k in range(0, len(images) - batch + 1, batch)]

    class ImageReader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = iter(parts)

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self._feeds, None)
            return None if part is None else {entry.name: part}

    return ImageReader()
