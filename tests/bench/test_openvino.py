"""OpenVINO in the benchmark: the same networks there, compared before they are timed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console
from torch import nn

from dirnet_convert.bench.engines import EngineKind, open_engine, random_inputs
from dirnet_convert.bench.measure import MeasureOptions
from dirnet_convert.bench.openvino import (
    CHECKED_INPUTS,
    MOST_DIFFERENCE,
    Demand,
    bound_openvino_call,
    check_rival,
)
from dirnet_convert.bench.report import tables, to_json
from dirnet_convert.bench.suite import BenchOptions, run_suite
from dirnet_convert.binarize.layers import BinaryConv2d
from dirnet_convert.errors import DirnetError
from dirnet_convert.onnx_export.exporter import export_float_onnx, export_onnx
from dirnet_convert.onnx_export.openvino.export import export_openvino_checked
from dirnet_convert.onnx_export.openvino.quantize import input_steps
from dirnet_convert.onnx_export.quantize_rest import quantize_rest
from dirnet_convert.onnx_export.verify_report import ExportMismatch
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions
from dirnet_convert.runtime.openvino import compile_for_cpu

pytestmark = pytest.mark.openvino

SEED = 0
SHORT = MeasureOptions(rounds=2, block_ms=0.1, warmup_calls=1)


@pytest.fixture(scope="module", autouse=True)
def openvino() -> None:
    """Skip where the rival is not installed."""
    pytest.importorskip("openvino", reason="openvino comes with the extra 'bench'")


def network(seed: int) -> tuple[nn.Module, nn.Module]:
    """Return a float network and its binary twin, one of whose two layers has groups."""
    torch.manual_seed(seed)
    convs = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=2)
    stem, fc = nn.Conv2d(3, 16, 3), nn.Linear(16, 5)

    def whole(first: nn.Module, second: nn.Module) -> nn.Module:
        pool = nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(stem, nn.PReLU(), first, nn.Hardtanh(), second, pool, nn.Flatten(), fc).eval()

    binary = [BinaryConv2d.from_conv(conv, ConvertOptions(), EstimatorOptions()) for conv in convs]
    return whole(*convs), whole(*binary)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[EngineKind, Path]:
    folder, (plain, binary) = tmp_path_factory.mktemp("models"), network(SEED)
    images = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(SEED))
    export_float_onnx(plain, images[:1], folder / "teacher.onnx")
    export_onnx(binary, images[:1], folder / "model.onnx")
    export_openvino_checked(binary, images, folder / "model.xml")
    return {
        EngineKind.FP32: folder / "teacher.onnx",
        EngineKind.BINARY: folder / "model.onnx",
        EngineKind.OPENVINO_FP32: folder / "teacher.onnx",
        EngineKind.OPENVINO: folder / "model.xml",
    }


def test_the_rival_is_in_the_report(models: dict[EngineKind, Path]) -> None:
    steps: list[str] = []
    result = run_suite(
        models, BenchOptions(batch=2, measure=SHORT), lambda what, _done, _total: steps.append(what)
    )
    assert steps[0] == "comparing outputs" and steps.index("engines, 1 thread") > 0
    said = json.loads(json.dumps(to_json(result)))
    assert said["machine"]["versions"]["openvino"][0].isdigit()
    weights = models[EngineKind.OPENVINO].with_suffix(".bin")
    size = models[EngineKind.OPENVINO].stat().st_size + weights.stat().st_size
    assert said["file_bytes"]["openvino"] == size
    assert set(said["rivals"]) == {"openvino-fp32", "openvino"}
    for check in said["rivals"].values():
        assert 0 <= check["smallest"] <= check["median"] <= check["largest"] < 1e-4
        assert check["inputs"] == 8
    assert sum(said["rivals"]["openvino"]["kernels"].values()) == 1
    assert said["rivals"]["openvino"]["float_layers"] == ["4"]
    engines = {engine["engine"]: engine for engine in said["results"][0]["engines"]}
    assert list(engines) == ["fp32", "binary", "openvino-fp32", "openvino"]
    assert engines["openvino"]["twin"] == "binary" and engines["openvino"]["twin_speedup"] > 0
    assert "twin" not in engines["binary"]
    text = io.StringIO()
    Console(file=text, width=400).print(tables(result))
    for words in ("OpenVINO FP32", "OpenVINO binary: outputs differ", "in float there: 4.", "x as fast"):
        assert words in text.getvalue()


def test_another_network_is_not_timed(models: dict[EngineKind, Path], tmp_path: Path) -> None:
    images = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(SEED))
    export_openvino_checked(network(SEED + 1)[1], images, tmp_path / "model.xml")
    other = {**models, EngineKind.OPENVINO: tmp_path / "model.xml"}
    with pytest.raises(DirnetError, match="do not compute the same"):
        run_suite(other, BenchOptions(measure=SHORT))


@pytest.fixture
def clipped(models: dict[EngineKind, Path]) -> nn.Module:
    """What changes half of the inputs on which the networks are compared, and leaves the others alone."""
    session = open_engine(EngineKind.FP32, models[EngineKind.FP32], 1)
    inputs = (random_inputs(session, 1, SEED + k) for k in range(CHECKED_INPUTS))
    largest = sorted(float(np.abs(x).max()) for (x,) in (feeds.values() for feeds in inputs))
    bound = sum(largest[CHECKED_INPUTS // 2 - 1 : CHECKED_INPUTS // 2 + 1]) / 2
    return nn.Hardtanh(-bound, bound)


def test_a_float_network_agrees_on_every_input(
    models: dict[EngineKind, Path], clipped: nn.Module, tmp_path: Path
) -> None:
    export_float_onnx(
        nn.Sequential(clipped, network(SEED)[0]), torch.zeros(1, 3, 12, 10), tmp_path / "o.onnx"
    )
    with pytest.raises(DirnetError, match="do not compute the same"):
        run_suite({**models, EngineKind.OPENVINO_FP32: tmp_path / "o.onnx"}, BenchOptions(measure=SHORT))


def test_a_binary_network_may_differ_on_some_inputs(
    models: dict[EngineKind, Path], clipped: nn.Module, tmp_path: Path
) -> None:
    images = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(SEED))
    export_openvino_checked(nn.Sequential(clipped, network(SEED)[1]), images, tmp_path / "o.xml")
    result = run_suite({**models, EngineKind.OPENVINO: tmp_path / "o.xml"}, BenchOptions(measure=SHORT))
    check = result.rivals[EngineKind.OPENVINO]
    assert check.smallest < MOST_DIFFERENCE < check.largest


def test_a_bound_call_computes_what_was_bound(models: dict[EngineKind, Path]) -> None:
    compiled = compile_for_cpu(models[EngineKind.OPENVINO], threads=1, batch=2)
    images = np.random.default_rng(SEED).standard_normal((2, 3, 12, 10), dtype=np.float32)
    session = open_engine(EngineKind.BINARY, models[EngineKind.BINARY], 1)
    own = session.run(None, {session.get_inputs()[0].name: images})[0]
    call = bound_openvino_call(compiled, images)
    call()
    np.testing.assert_allclose(call()[0], own, rtol=0, atol=1e-5)
    pair = models[EngineKind.BINARY], models[EngineKind.OPENVINO]
    check = check_rival(session, *pair, 1, [images, images[::-1].copy()], Demand.EVERY_INPUT)
    assert check.inputs == 2 and check.largest < 1e-4


def test_an_int8_rest_has_its_rival(models: dict[EngineKind, Path], tmp_path: Path) -> None:
    binary = network(SEED)[1]
    images = torch.rand(8, 3, 12, 10, generator=torch.Generator().manual_seed(SEED)) * 2 - 1
    quantized = quantize_rest(onnx.load(models[EngineKind.BINARY]), images.numpy())
    onnx.save(quantized.model, tmp_path / "model.onnx")
    assert set(input_steps(quantized.model)) == {layer.partition("/")[0] for layer in quantized.layers}
    written = export_openvino_checked(binary, images[:2], tmp_path / "model.xml", quantized.model)
    assert written.int8_layers == len(quantized.layers)
    other = {
        **models,
        EngineKind.BINARY: tmp_path / "model.onnx",
        EngineKind.OPENVINO: tmp_path / "model.xml",
    }
    said = to_json(run_suite(other, BenchOptions(measure=SHORT)))
    titles = {engine["engine"]: engine["title"] for engine in said["results"][0]["engines"]}
    assert titles["binary"] == "binary + INT8" and titles["openvino"] == "OpenVINO + INT8"
    with pytest.raises(ExportMismatch):
        export_openvino_checked(binary, 40 * images[:2], tmp_path / "beyond.xml", quantized.model)
    assert not (tmp_path / "beyond.xml").exists()
