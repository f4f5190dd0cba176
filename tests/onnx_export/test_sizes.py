"""Every byte of a file is counted, under the right kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
from export_networks import build, images

from dirnet_convert.binarize.layers import BinaryLayer
from dirnet_convert.onnx_export.exporter import export_float_onnx
from dirnet_convert.onnx_export.operators import word_count
from dirnet_convert.onnx_export.sizes import SizeKind, compare_sizes, float_layers, size_by_kind

NAME = "resnet_original"


def test_the_kinds_add_up_and_packed_weights_are_counted(exported: Callable[[str], onnx.ModelProto]) -> None:
    model = exported(NAME)
    total = len(model.SerializeToString())
    sizes = size_by_kind(model, total)
    assert sum(sizes.values()) == total
    layers = [module for module in build(NAME).modules() if isinstance(module, BinaryLayer)]
    words = sum(m.weight[:, 0].numel() * word_count(m.weight.shape[1]) for m in layers)
    assert sizes[SizeKind.PACKED] == 8 * words
    # The stem and the 1x1 shortcut; the last layer.
    assert sizes[SizeKind.CONVOLUTION] == 4 * (16 * 3 * 49 + 32 * 16)
    assert sizes[SizeKind.LINEAR] == 4 * 5 * 32
    assert sizes[SizeKind.BATCH_NORM] == 0


def test_float_layers_are_named_for_their_modules(exported: Callable[[str], onnx.ModelProto]) -> None:
    layers = float_layers(exported(NAME))
    assert [layer.name for layer in layers] == ["stem.0", "layer2.0.downsample.0", "fc"]
    assert [layer.weights for layer in layers] == [16 * 3 * 49, 32 * 16, 5 * 32]


def test_two_files_are_compared(exported: Callable[[str], onnx.ModelProto], tmp_path: Path) -> None:
    binary, plain = tmp_path / "binary.onnx", tmp_path / "float.onnx"
    binary.write_bytes(exported("vgg").SerializeToString())
    network = build("vgg")[:3]
    size = export_float_onnx(network, images("vgg")[:1], plain)
    report = compare_sizes(plain, binary)
    assert report.float_file_bytes == size and report.ratio == size / report.binary_file_bytes
    assert sum(row.float_bytes for row in report.rows) == size
    assert sum(row.binary_bytes for row in report.rows) == report.binary_file_bytes
