"""OpenVINO set up for a comparison, and its failures in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.runtime.openvino import (
    binary_convolutions,
    compile_for_cpu,
    most_side_padding,
    read_for_cpu,
    require_openvino,
)

pytestmark = pytest.mark.openvino


@pytest.fixture(autouse=True)
def openvino() -> None:
    """Skip where the rival is not installed."""
    pytest.importorskip("openvino", reason="openvino comes with the extra 'bench'")


def save(path: Path, target: list[int]) -> Path:
    """Write a model that reshapes (N, 3, 4, 4) to ``target``."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Reshape", ["y", "shape"], ["z"])],
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.array(target, np.int64), "shape")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_it_runs_a_batch_with_the_threads_that_were_asked_for(tmp_path: Path) -> None:
    compiled = compile_for_cpu(save(tmp_path / "model.onnx", [-1, 48]), threads=1, batch=5)
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    images = np.random.default_rng(0).standard_normal((5, 3, 4, 4), dtype=np.float32)
    assert np.array_equal(compiled(images)[0], np.maximum(images, 0).reshape(5, 48))
    assert binary_convolutions(compiled) == {}


def test_how_far_its_kernel_pads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert most_side_padding() in (2, 4)

    def refuse(*_arguments: object) -> None:
        raise RuntimeError("BinaryConvolution has unsupported parameters")

    import openvino

    monkeypatch.setattr(openvino.Core, "compile_model", refuse)
    assert most_side_padding() == 2


def test_failures_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model file"):
        read_for_cpu(tmp_path / "nowhere.xml")
    (tmp_path / "damaged.xml").write_text("no graph")
    with pytest.raises(DirnetError, match=r"cannot read damaged\.xml: .+\.$"):
        read_for_cpu(tmp_path / "damaged.xml")
    with pytest.raises(DirnetError, match="does not take batches of 5"):
        compile_for_cpu(save(tmp_path / "model.onnx", [1, 48]), threads=1, batch=5)


def test_more_threads_than_processors_are_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(DirnetError, match="4096"):
        compile_for_cpu(save(tmp_path / "model.onnx", [-1, 48]), threads=4096)


def test_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match=r"pip install 'dirnet-convert\[bench\]'"):
        require_openvino()
