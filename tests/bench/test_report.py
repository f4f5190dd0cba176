"""What the report says of layers that lost to FP32; the times are made up."""

from __future__ import annotations

import dataclasses
import io

import pytest
from onnx import helper
from rich.console import Console

from dirnet_convert.bench.engines import EngineKind
from dirnet_convert.bench.layers import LayerResult, LayerShape
from dirnet_convert.bench.machine import Machine
from dirnet_convert.bench.measure import Measurement, Timing
from dirnet_convert.bench.profile import NodeTime, Profile, read_profile
from dirnet_convert.bench.report import slower_layers, tables, to_json
from dirnet_convert.bench.suite import BenchOptions, BenchResult, ThreadResult
from dirnet_convert.onnx_export.operators import DOMAIN, OPERATORS
from dirnet_convert.recipe import Rest


def node(module: str, ms: float, binary: bool) -> NodeTime:
    return NodeTime(f"{module}/Conv", "BinaryConv2d" if binary else "Conv", module, binary, ms, ms, ((1, 8),))


def alone(module: str, kernel_ratio: float) -> LayerResult:
    shape = LayerShape("BinaryConv2d", (1, 32, 14, 14), 32, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 32)
    return LayerResult(
        shape=shape,
        modules=(f"{module}#2",),
        float_call_ms=2.0,
        float_kernel_ms=kernel_ratio,
        binary_call_ms=1.0,
        binary_kernel_ms=1.0,
        call_ratio=2.0,
        best_ratio=2.0,
        quiet=True,
    )


def benchmark(fp32_ms: dict[str, float], layers: tuple[LayerResult, ...] = ()) -> BenchResult:
    """Return a benchmark whose binary layers each take 1 ms inside the network."""
    part = ThreadResult(
        threads=1,
        engines=Measurement(
            tuple(Timing(kind, 1.0, 1.0, 1.0, 1.0, (1.0,)) for kind in (EngineKind.FP32, EngineKind.BINARY)),
            rounds=1,
            quiet_rounds=1,
            only_quiet=True,
            other_load=0.0,
        ),
        profiles={
            EngineKind.FP32: Profile(tuple(node(module, ms, False) for module, ms in fp32_ms.items())),
            EngineKind.BINARY: Profile(tuple(node(module, 1.0, True) for module in fp32_ms)),
        },
        layers=layers,
    )
    machine = Machine("cpu", 1, "x86_64", "Linux", "3.11", {})
    sizes = {EngineKind.FP32: 32, EngineKind.BINARY: 1}
    return BenchResult(machine, "avx512", BenchOptions(), sizes, (part,))


def printed(result: BenchResult) -> str:
    text = io.StringIO()
    Console(file=text, width=200).print(tables(result))
    return text.getvalue()


def test_a_layer_that_lost_inside_the_network_is_named() -> None:
    result = benchmark({"fast": 9.0, "even": 1.0, "slow": 0.6})
    (layer,) = slower_layers(result.results[0])
    assert (layer.module, layer.times_fp32) == ("slow", 0.6)
    assert "slow: binary slower than FP32 here (0.6x): keep it in float with --keep 'slow'" in printed(result)
    assert to_json(result)["results"][0]["slower_than_fp32"] == [{"module": "slow", "times_fp32": 0.6}]


def test_the_float_stem_is_no_layer_to_keep() -> None:
    result = benchmark({"stem": 0.5, "fast": 9.0})
    (part,) = result.results
    nodes = [
        dataclasses.replace(node, op="StemConv2dWithBits", binary=False) if node.module == "stem" else node
        for node in part.profiles[EngineKind.BINARY].nodes
    ]
    profiles = part.profiles | {EngineKind.BINARY: Profile(tuple(nodes))}
    part = dataclasses.replace(part, profiles=profiles)
    assert slower_layers(part) == ()
    said = dataclasses.replace(result, results=(part,))
    assert "50 % of the time in binary operators" in " ".join(printed(said).split())
    assert to_json(said)["results"][0]["profiles"]["binary"]["binary_ms"] == 1.0


@pytest.mark.parametrize("operator", OPERATORS)
def test_only_what_computes_on_bits_counts_as_binary(operator: str) -> None:
    event = {
        "cat": "Node",
        "name": "layer_kernel_time",
        "dur": 1000,
        "args": {"node_index": "0", "op_name": operator, "input_type_shape": [{"float": [1, 8]}]},
    }
    graph = helper.make_graph([helper.make_node(operator, [], [], "layer", domain=DOMAIN)], "network", [], [])
    profile = read_profile([event], helper.make_model(graph))
    assert profile.total_ms == pytest.approx(1, abs=1e-3)
    assert profile.binary_share == (0 if operator.startswith("Stem") else 1)


def test_a_layer_that_lost_alone_is_named_by_its_module() -> None:
    result = benchmark({"fast": 9.0, "other": 2.0}, (alone("other", 0.75), alone("fast", 4.0)))
    assert [(layer.module, layer.times_fp32) for layer in slower_layers(result.results[0])] == [
        ("other", 0.75)
    ]
    assert "--keep 'other'" in printed(result)
    # 32 channels in 32 groups, 14 x 14 outputs of 9 taps.
    assert f"{32 * 14 * 14 * 9 / 1e6:.1f}" in printed(result)


@pytest.mark.parametrize("speed", [1.0, 1.04, 16.0])
def test_nothing_is_said_where_nothing_lost(speed: float) -> None:
    result = benchmark({"layer": speed})
    assert slower_layers(result.results[0]) == ()
    assert "slower" not in printed(result)


def test_a_loss_is_not_rounded_away() -> None:
    assert "0.97x" in printed(benchmark({"layer": 0.97}))


def test_the_binary_model_is_named_by_its_rest() -> None:
    plain = benchmark({"layer": 2.0})
    coarse = dataclasses.replace(plain, rest=Rest.INT8)
    for result, rest, title in ((plain, "float", "binary"), (coarse, "int8", "binary + INT8")):
        said = to_json(result)
        assert said["rest"] == rest
        assert [engine["title"] for engine in said["results"][0]["engines"]] == ["FP32", title]
    assert "binary + INT8" in printed(coarse) and "binary + INT8" not in printed(plain)
