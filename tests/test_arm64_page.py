"""The C++ program of docs/arm64.md, compiled and run where ONNX Runtime's C++ header is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from dirnet_convert.runtime.session import load_session

PAGE = Path(__file__).parent.parent / "docs" / "arm64.md"
CHANNELS = 70
INCLUDES = ("-I/usr/include/onnxruntime", "-I/usr/local/include/onnxruntime")


def model(path: Path) -> Path:
    """Write a Binarize whose first word of bits, as a float, is the answer."""
    threshold = helper.make_tensor("threshold", TensorProto.FLOAT, [CHANNELS], np.zeros(CHANNELS))
    nodes = [
        helper.make_node("Binarize", ["x", "threshold"], ["bits"], domain="ai.dirnet", channels=CHANNELS),
        helper.make_node("Cast", ["bits"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [threshold],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.dirnet", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def test_the_program(library: Path, tmp_path: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    (text,) = re.findall(r"```cpp\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    source = tmp_path / "program.cc"
    source.write_text(text)
    header = subprocess.run(
        [compiler, *INCLUDES, "-x", "c++", "-fsyntax-only", "-"],
        input="#include <onnxruntime_cxx_api.h>\n",
        text=True,
        capture_output=True,
        check=False,
    )
    if header.returncode != 0:
        pytest.skip("ONNX Runtime's C++ header is not installed")
    (runtime,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    # The wheel's library has its version in its name, and calls itself by a shorter one.
    (tmp_path / "libonnxruntime.so.1").symlink_to(runtime)
    program = tmp_path / "program"
    flags = ("-std=c++17", "-Wall", f"-Wl,-rpath,{tmp_path}", f"-Wl,-rpath,{runtime.parent}")
    command = [compiler, *flags, *INCLUDES, source, "-o", program, runtime]
    subprocess.run([str(word) for word in command], check=True)
    path = model(tmp_path / "model.onnx")
    done = subprocess.run([str(program), str(path), str(library)], capture_output=True, text=True, check=True)
    session = load_session(path)
    (expected,) = session.run(None, {"x": np.full((1, CHANNELS), 0.5, np.float32)})
    assert float(done.stdout) == pytest.approx(float(expected[0, 0]), rel=1e-5)
