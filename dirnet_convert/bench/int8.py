"""ONNX Runtime's own INT8: static quantization of the FP32 model, the strongest baseline that it offers."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dirnet_convert.files import replacing


def quantize_int8(float_model: Path, output: Path, images: np.ndarray, float_part: str = "") -> None:
    """Write ``float_model`` quantized to INT8, calibrated on ``images`` (N, C, H, W) float32.

    QuantizeLinear/DequantizeLinear pairs, one scale per output channel, uint8 activations and int8 weights:
    the fastest of ONNX Runtime's forms on x86 with VNNI, and the form that it recommends there. Nodes whose
    name begins with ``float_part`` stay in float, where it is not empty: 256 steps are too few for a box.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    reader = _reader(float_model, images)
    # The quantizer logs advice about steps that are done here.
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder, replacing(output) as part:
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(str(float_model), str(prepared), skip_symbolic_shape=True)
            nodes = onnx.load(str(prepared), load_external_data=False).graph.node
            kept = [node.name for node in nodes if float_part and node.name.startswith(float_part)]
            quantize_static(
                str(prepared),
                str(part),
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=kept,
            )
    finally:
        root.setLevel(level)


def _reader(float_model: Path, images: np.ndarray) -> object:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    entry = onnx.load(str(float_model), load_external_data=False).graph.input[0]
    batch = entry.type.tensor_type.shape.dim[0].dim_value or 1

    class ImageReader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds: Iterator[dict[str, np.ndarray]] = iter(
                {entry.name: images[k : k + batch]} for k in range(0, len(images) - batch + 1, batch)
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    return ImageReader()
