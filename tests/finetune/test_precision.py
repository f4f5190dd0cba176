"""The number format of a training's convolutions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from dirnet_convert.finetune.loop import train
from dirnet_convert.finetune.precision import chosen_precision
from dirnet_convert.recipe import Precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize("has_instructions", [False, True])
def test_auto_is_bfloat16_where_the_processor_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, has_instructions: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions)
    expected = Precision.BFLOAT16 if has_instructions else Precision.FLOAT32
    assert chosen_precision(Precision.AUTO, CPU) is expected


@pytest.mark.parametrize("has_instructions", [False, True])
def test_auto_asks_an_accelerator_for_arithmetic_of_its_own(
    monkeypatch: pytest.MonkeyPatch, has_instructions: bool
) -> None:
    def supported(*, including_emulation: bool) -> bool:
        return has_instructions or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    expected = Precision.BFLOAT16 if has_instructions else Precision.FLOAT32
    assert chosen_precision(Precision.AUTO, CUDA) is expected


@pytest.mark.parametrize("wanted", [Precision.FLOAT32, Precision.BFLOAT16])
@pytest.mark.parametrize("has_instructions", [False, True])
def test_what_is_asked_for_is_taken(
    monkeypatch: pytest.MonkeyPatch, wanted: Precision, has_instructions: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions)
    assert chosen_precision(wanted, CPU) is wanted


@pytest.mark.parametrize("has_instructions", [False, True])
def test_a_training_with_auto_is_that_with_what_it_chose(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_instructions: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions)
    found = {}
    for precision in Precision:
        options = dataclasses.replace(tiny.OPTIONS, precision=precision, epochs=1)
        train(tiny.tiny_job(tmp_path / precision, options=options))
        found[precision] = load_file(tmp_path / precision / "model.safetensors")
    same, other = Precision.BFLOAT16, Precision.FLOAT32
    if not has_instructions:
        same, other = other, same
    weights = found[Precision.AUTO]
    assert all(torch.equal(weights[name], found[same][name]) for name in weights)
    assert not all(torch.equal(weights[name], found[other][name]) for name in weights)
