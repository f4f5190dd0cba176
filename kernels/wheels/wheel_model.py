"""A binary model whose output is known without any kernel; run as a program, it tries the installed wheel."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, OUTPUTS, PIXELS = 100, 40, 3
SEED = 7
DOMAIN = "ai.dirnet"


def image() -> np.ndarray:
    """Return the input, (PIXELS, CHANNELS) float32."""
    return np.random.default_rng(SEED).standard_normal((PIXELS, CHANNELS), dtype=np.float32)


def expected_output() -> np.ndarray:
    """Return what the model gives for image(), (PIXELS, OUTPUTS) float32: +-1 times +-1, summed."""
    signs = np.where(image() >= 0, 1, -1)
    return (signs @ np.where(_bits(), 1, -1).T).astype(np.float32)


def write_model(path: Path) -> Path:
    """Write the model, a Binarize and a BinaryGemm, to ``path``."""
    padded = np.zeros((OUTPUTS, 128), dtype=bool)
    padded[:, :CHANNELS] = _bits()
    weight = np.packbits(padded, axis=1, bitorder="little").view("<u8")
    constants = {
        "zero": np.zeros(CHANNELS, np.float32),
        "weight": weight,
        "scale": np.ones(OUTPUTS, np.float32),
        "bias": np.zeros(OUTPUTS, np.float32),
    }
    nodes = [
        helper.make_node("Binarize", ["x", "zero"], ["bits"], domain=DOMAIN, channels=CHANNELS),
        helper.make_node(
            "BinaryGemm", ["bits", "weight", "scale", "bias"], ["y"], domain=DOMAIN, channels=CHANNELS
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "wheel",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [PIXELS, CHANNELS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [PIXELS, OUTPUTS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def _bits() -> np.ndarray:
    return np.random.default_rng(SEED + 1).integers(0, 2, (OUTPUTS, CHANNELS)).astype(bool)


def main() -> None:
    """Run the model with the installed kernels and compare."""
    from dirnet_convert.runtime.isa import chosen_isa
    from dirnet_convert.runtime.session import load_session

    with tempfile.TemporaryDirectory() as folder:
        session = load_session(write_model(Path(folder) / "model.onnx"))
        (output,) = session.run(None, {"x": image()})
    if output.tobytes() != expected_output().tobytes():
        raise SystemExit("the model computes something else than it should")
    print(f"{chosen_isa()} kernels: right")


if __name__ == "__main__":
    main()
