"""A whole benchmark of a tiny model: what is in it, not how fast it is."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.console import Console

from dirnet_convert.bench.engines import EngineKind, open_engine, random_inputs
from dirnet_convert.bench.int8 import quantize_int8
from dirnet_convert.bench.layers import binary_layer_model, find_layers, float_layer_model
from dirnet_convert.bench.measure import MeasureOptions
from dirnet_convert.bench.profile import profile_in_turns
from dirnet_convert.bench.report import module_times, tables, to_json, write_report
from dirnet_convert.bench.suite import BenchOptions, run_suite
from dirnet_convert.errors import UsageError

SEED = 0
CHANNELS, SIZE = 70, 6
SHORT = MeasureOptions(rounds=2, block_ms=0.1, warmup_calls=1)

Models = dict[EngineKind, Path]


def test_everything_is_in_the_report(models: Models, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    options = BenchOptions(threads=(1,), batch=2, layers=True, seed=SEED, measure=SHORT)
    result = run_suite(models, options, lambda *step: steps.append(step))
    write_report(result, tmp_path / "bench.json")
    written = json.loads((tmp_path / "bench.json").read_text())
    assert {key: written[key] for key in ("format", "batch", "rounds", "isa")} == {
        "format": 2,
        "batch": 2,
        "rounds": 2,
        "isa": result.isa,
    }
    assert written["machine"]["cpu"]
    assert written["file_bytes"] == {str(kind): path.stat().st_size for kind, path in models.items()}
    (part,) = written["results"]
    assert [engine["engine"] for engine in part["engines"]] == ["fp32", "binary"]
    assert part["engines"][0]["times_fp32"] == 1.0
    for engine in part["engines"]:
        assert 0 < engine["min_ms"] <= engine["quartiles_ms"][0] <= engine["quartiles_ms"][1]
    assert 0 < part["profiles"]["binary"]["binary_share"] < 1
    assert part["profiles"]["fp32"]["binary_share"] == 0
    assert [row["module"] for row in part["modules"]] == ["body.conv"]
    assert len(part["layers"]) == 2
    assert result.peaks is None or result.peaks.binary > result.peaks.float32 > 0
    for layer in part["layers"]:
        assert layer["macs"] == 2 * SIZE * SIZE * CHANNELS * CHANNELS * 9
        ratios = [layer[name] for name in ("call_ratio", "kernel_ratio", "best_ratio")]
        assert layer["lowest_ratio"] == min(ratios) > 0
        assert layer["claim"] == (layer["lowest_ratio"] if layer["quiet"] else None)
    assert json.loads(json.dumps(to_json(result)))["results"] == written["results"]
    assert steps[-1] == ("layers, 1 thread", 2, 2)
    text = io.StringIO()
    Console(file=text, width=200).print(tables(result))
    for expected in (
        "FP32",
        "binary",
        "BinaryConv2dAddAct",
        "70->70, 6x6, 3x3, stride 1, batch 2",
        result.isa,
    ):
        assert expected in text.getvalue()


def test_modules_are_found_in_both_models(models: Models) -> None:
    profiles = profile_in_turns(models, threads=1, batch=1, seed=SEED, turns=1)
    assert [module for module, _, _ in module_times(profiles)] == ["body.conv"]
    binary = [node for node in profiles[EngineKind.BINARY].nodes if node.binary]
    assert [node.op for node in binary] == ["Binarize", "BinaryConv2dActWithBits", "BinaryConv2dAddAct"]
    assert all(node.median_ms > 0 for node in binary)
    assert binary[1].input_shapes[0] == (1, SIZE, SIZE, 2)


def test_layers_alone_compute_what_the_network_computes(models: Models, tmp_path: Path) -> None:
    """The first layer's model, fed with the network's own bits, gives the second layer's inputs."""
    whole = onnx.load(str(models[EngineKind.BINARY]))
    profile = profile_in_turns(models, 1, 1, SEED, 1)[EngineKind.BINARY]
    layers = find_layers(whole, profile)
    assert [layer.modules for layer in layers] == [("body.conv",), ("body.conv#2",)]
    parts = []
    for layer in layers:
        path = tmp_path / "layer.onnx"
        onnx.save(binary_layer_model(layer), str(path))
        parts.append(open_engine(EngineKind.BINARY, path, 1))
    network = open_engine(EngineKind.BINARY, models[EngineKind.BINARY], 1)
    images = np.random.default_rng(SEED).standard_normal((1, CHANNELS, SIZE, SIZE), dtype=np.float32)
    vectors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in whole.graph.initializer}
    positive = images.transpose(0, 2, 3, 1) >= vectors["zero"]
    padded = np.concatenate([positive, np.zeros((1, SIZE, SIZE, -CHANNELS % 64), bool)], axis=-1)
    bits = np.packbits(padded, axis=-1, bitorder="little").view("<u8")
    y, bits2 = parts[0].run(None, {"bits": bits})
    z = parts[1].run(None, {"bits2": bits2, "y": y})[0]
    assert np.array_equal(z.transpose(0, 3, 1, 2), network.run(None, {"images": images})[0])


def test_the_float_twin_has_the_same_shape(models: Models, tmp_path: Path) -> None:
    profile = profile_in_turns(models, 1, 1, SEED, 1)[EngineKind.BINARY]
    shape = find_layers(onnx.load(str(models[EngineKind.BINARY])), profile)[0].shape
    path = tmp_path / "float.onnx"
    onnx.save(float_layer_model(shape, SEED), str(path))
    session = open_engine(EngineKind.FP32, path, 1)
    out = session.run(None, random_inputs(session, 1, SEED))[0]
    assert out.shape == (1, CHANNELS, *shape.output_size) == (1, CHANNELS, SIZE, SIZE)
    assert out.min() == 0


def test_int8_is_quantized_and_close(float_model: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(SEED).standard_normal((16, CHANNELS, SIZE, SIZE), dtype=np.float32)
    path = tmp_path / "int8.onnx"
    quantize_int8(float_model, path, images)
    nodes = {node.op_type for node in onnx.load(str(path)).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= nodes
    plain, quantized = (
        open_engine(kind, model, 1).run(None, {"images": images})[0]
        for kind, model in ((EngineKind.FP32, float_model), (EngineKind.INT8, path))
    )
    error = np.abs(plain - quantized).mean() / np.abs(plain).mean()
    assert 0 < error < 0.05


def test_a_model_without_binary_layers(models: Models) -> None:
    with pytest.raises(UsageError, match="no binary convolutions"):
        run_suite(
            {**models, EngineKind.BINARY: models[EngineKind.FP32]}, BenchOptions(layers=True, measure=SHORT)
        )


def test_what_is_needed(models: Models) -> None:
    with pytest.raises(UsageError, match="fp32 and binary"):
        run_suite({EngineKind.FP32: models[EngineKind.FP32]}, BenchOptions(measure=SHORT))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threads": ()}, "at least 1"),
        ({"batch": 0}, "at least one image"),
    ],
)
def test_impossible_options(change: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        BenchOptions(**change)


def test_more_threads_than_processors(models: Models) -> None:
    with pytest.raises(UsageError, match="4096 threads"):
        run_suite(models, BenchOptions(threads=(4096,), measure=SHORT))


def test_random_bits_leave_the_spare_ones_clear(models: Models, tmp_path: Path) -> None:
    profile = profile_in_turns(models, 1, 1, SEED, 1)[EngineKind.BINARY]
    layer = find_layers(onnx.load(str(models[EngineKind.BINARY])), profile)[0]
    path = tmp_path / "layer.onnx"
    onnx.save(binary_layer_model(layer), str(path))
    feeds = random_inputs(open_engine(EngineKind.BINARY, path, 1), 1, SEED, bit_channels=CHANNELS)
    assert feeds["bits"].shape == (1, SIZE, SIZE, 2)
    assert feeds["bits"][..., 1].max() < 2 ** (CHANNELS - 64)
