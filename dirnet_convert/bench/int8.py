"""ONNX Runtime's own INT8: static quantization of the FP32 model, the strongest baseline that it offers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from dirnet_convert.files import replacing
from dirnet_convert.runtime.int8 import Int8Choice, quantize_static
from dirnet_convert.runtime.model_file import read_model


def quantize_int8(float_model: Path, output: Path, images: np.ndarray, float_part: str = "") -> None:
    """Write ``float_model`` quantized to INT8, calibrated on ``images`` (N, C, H, W) float32.

    Nodes whose name begins with ``float_part`` stay in float, where it is not empty: 256 steps are too few
    for a box.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, replacing(output) as part:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(float_model), str(prepared), skip_symbolic_shape=True)
        nodes = read_model(prepared).graph.node
        kept = tuple(node.name for node in nodes if float_part and node.name.startswith(float_part))
        quantize_static(prepared, part, images, Int8Choice(excluded=kept))
