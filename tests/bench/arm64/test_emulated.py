"""ONNX Runtime's real aarch64 build with the cross-built kernels, under the emulator."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest
from rich.console import Console

from dirnet_convert.bench.arm64.emulated import EmulatedResult, run_emulated
from dirnet_convert.bench.arm64.emulated_report import tables, to_json, write_report
from dirnet_convert.bench.engines import EngineKind

SEED = 5


@pytest.mark.slow
@pytest.mark.usefixtures("emulation")
class TestEmulated:
    """One emulation serves all."""

    result: EmulatedResult | None = None

    @pytest.fixture
    def emulated(self, models: dict[EngineKind, Path]) -> EmulatedResult:
        print(f"seed {SEED}")
        if type(self).result is None:
            type(self).result = run_emulated(models, 6, SEED)
        return type(self).result

    def test_networks(self, emulated: EmulatedResult) -> None:
        # The binary network has no float layer: every value is decided by integers.
        assert emulated.networks[EngineKind.BINARY].equal_share == 1
        assert emulated.networks[EngineKind.FP32].largest_difference < 1e-5
        assert onnxruntime.__version__ in emulated.runtime

    def test_operators(self, emulated: EmulatedResult) -> None:
        binary = {item.op: item for item in emulated.operators[EngineKind.BINARY]}
        assert set(binary) >= {"Binarize", "BinaryConv2dActWithBits", "BinaryConv2dAddAct"}
        assert emulated.totals[EngineKind.FP32] > emulated.totals[EngineKind.BINARY]
        assert emulated.totals[EngineKind.BINARY] == sum(item.instructions for item in binary.values())

    def test_layers(self, emulated: EmulatedResult) -> None:
        assert [layer.modules for layer in emulated.layers] == [("body.conv",), ("body.conv#2",)]
        for layer in emulated.layers:
            assert 0 < layer.vector_instructions < layer.binary_instructions < layer.fp32_instructions
            # Exclusive-or, popcount, addition: fewer than three vector instructions for 128 multiply-adds
            # would mean that something was not counted.
            assert layer.vector_instructions > 3 * layer.macs * 4 / 9 / 128

    def test_the_report_is_labelled_and_has_no_time(self, emulated: EmulatedResult, tmp_path: Path) -> None:
        write_report(emulated, tmp_path / "bench.json")
        values = json.loads((tmp_path / "bench.json").read_text())
        assert values["emulated"] is True
        assert "not time" in values["label"]
        assert "_ms" not in json.dumps(to_json(emulated))
        console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(tables(emulated))
        text = console.export_text()
        assert "Emulated" in text
        assert " ms" not in text
        assert "speed-up by themselves" in text
