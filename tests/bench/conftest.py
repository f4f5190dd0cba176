"""A network of one convolution, as FP32 and as binary model, small enough to be timed in no time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dirnet_convert.bench.engines import EngineKind

CHANNELS, SIZE = 70, 6


@pytest.fixture(autouse=True)
def default_isa(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for the compiled library, and leave the choice of instruction set to it."""
    monkeypatch.delenv("DIRNET_ISA", raising=False)


def save(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> Path:
    shape = ["batch", CHANNELS, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.dirnet", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


@pytest.fixture
def float_model(tmp_path: Path) -> Path:
    """Conv and Relu; the convolution belongs to the module body.conv."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((CHANNELS, CHANNELS, 3, 3), dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["y"], name="body.conv/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["y"], ["out"], name="body.relu/Relu"),
    ]
    return save(tmp_path / "teacher.onnx", nodes, {"weight": weight})


@pytest.fixture
def binary_model(tmp_path: Path) -> Path:
    """The same with two binary convolutions of one shape, the second of which adds a residual."""
    generator = np.random.default_rng(1)
    words = -(-CHANNELS // 64)
    weight = generator.integers(0, 2**64, (CHANNELS, 3, 3, words), dtype=np.uint64)
    weight[..., -1] >>= np.uint64(-CHANNELS % 64)
    vectors = {
        name: generator.standard_normal(CHANNELS, dtype=np.float32) for name in ("scale", "bias", "zero")
    }
    conv = {
        "domain": "ai.dirnet",
        "channels": CHANNELS,
        "kernel_shape": [3, 3],
        "strides": [1, 1],
        "pads": [1, 1, 1, 1],
        "dilations": [1, 1],
        "group": 1,
    }
    act = {"clip_min": -1.0, "clip_max": 1.0}
    nodes = [
        helper.make_node("Transpose", ["images"], ["nhwc"], name="in", perm=[0, 2, 3, 1]),
        helper.make_node(
            "Binarize", ["nhwc", "zero"], ["bits"], name="b", domain="ai.dirnet", channels=CHANNELS
        ),
        helper.make_node(
            "BinaryConv2dActWithBits",
            ["bits", "weight", "scale", "bias", "scale", "zero"],
            ["y", "bits2"],
            name="body.conv",
            **conv,
            **act,
        ),
        helper.make_node(
            "BinaryConv2dAddAct",
            ["bits2", "weight", "scale", "bias", "scale", "y"],
            ["z"],
            name="body.conv#2",
            **conv,
            **act,
        ),
        helper.make_node("Transpose", ["z"], ["out"], name="out", perm=[0, 3, 1, 2]),
    ]
    return save(tmp_path / "model.onnx", nodes, {"weight": weight, **vectors})


@pytest.fixture
def models(float_model: Path, binary_model: Path) -> dict[EngineKind, Path]:
    return {EngineKind.FP32: float_model, EngineKind.BINARY: binary_model}
