"""Exports of one process share PyTorch's table of translations; other calls of its exporter do not notice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from dirnet_convert.onnx_export import translations as module
from dirnet_convert.onnx_export.exporter import export_float_onnx
from dirnet_convert.onnx_export.trace import OPSET
from dirnet_convert.onnx_export.translations import shared_translations


def _export(folder: Path) -> bytes:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Flatten()).eval()
    torch.nn.init.ones_(network[0].weight)
    torch.nn.init.zeros_(network[0].bias)
    path = folder / "model.onnx"
    export_float_onnx(network, torch.zeros(1, 3, 8, 8), path)
    return path.read_bytes()


def test_one_table_serves_all_exports_inside_and_none_outside() -> None:
    with shared_translations(OPSET):
        first = ONNXRegistry().from_torchlib(opset_version=OPSET)
        with shared_translations(OPSET):
            assert ONNXRegistry().from_torchlib(opset_version=OPSET) is first
    assert ONNXRegistry.from_torchlib(opset_version=OPSET) is not first


def test_an_error_inside_leaves_the_exporter_as_it_was() -> None:
    with pytest.raises(ValueError, match="inside"), shared_translations(OPSET):
        raise ValueError("inside")
    assert ONNXRegistry.from_torchlib(opset_version=OPSET) is not module.translations(OPSET)


def test_an_export_that_ends_later_than_another_leaves_nothing_behind() -> None:
    first, second = shared_translations(OPSET), shared_translations(OPSET)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert ONNXRegistry.from_torchlib(opset_version=OPSET) is not module.translations(OPSET)


def test_a_pytorch_without_the_table_exports_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_table = _export(tmp_path)
    module.translations.cache_clear()
    monkeypatch.setattr(module, "_MADE_ANEW", None)
    try:
        assert _export(tmp_path) == with_table
    finally:
        module.translations.cache_clear()


def test_the_table_is_pytorchs_own_and_holds_a_detectors_operators() -> None:
    # In a process of its own: there no other test has imported torchvision, and none has compiled anything,
    # upon which PyTorch registers operators of its quantizers that an earlier table lacks.
    lines = (
        "from dirnet_convert.onnx_export.translations import ONNXRegistry, translations",
        f"table = translations({OPSET}).functions",
        f"own = ONNXRegistry.from_torchlib(opset_version={OPSET}).functions",
        "print('torchvision::nms' in table, table is not own, table.keys() == own.keys())",
    )
    done = subprocess.run(
        [sys.executable, "-c", "; ".join(lines)], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split() == ["True"] * 3, done.stderr
