"""Reading an ONNX file: a damaged one is told in a sentence."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from dirnet_convert.errors import DirnetError
from dirnet_convert.runtime.model_file import read_model


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(helper.make_graph([], "empty", [], [])), path)
    assert read_model(path).graph.name == "empty"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"this is no protobuf")
    with pytest.raises(DirnetError, match=r"model\.onnx is damaged or no ONNX file"):
        read_model(path)
