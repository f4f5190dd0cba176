"""The bound of a kernel's rate: every loop runs, and a layer's share of it follows from its taps."""

from __future__ import annotations

import dataclasses

import pytest

from dirnet_convert.bench.layers import LayerResult, LayerShape
from dirnet_convert.bench.peaks import PeakKind, measure_peaks, peak_loop
from dirnet_convert.runtime.isa import Isa, available_isas


@pytest.mark.parametrize("kind", PeakKind)
def test_every_vector_isa_has_its_loops(kind: PeakKind) -> None:
    for isa in available_isas():
        loop = peak_loop(isa, kind)
        if isa in (Isa.REFERENCE, Isa.PORTABLE):
            assert loop is None
        else:
            assert loop is not None and loop() == loop() > 1e5


def test_an_isa_without_loops_has_no_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIRNET_ISA", "portable")
    assert measure_peaks() is None


def shape(**changes: object) -> LayerShape:
    plain = LayerShape("BinaryConv2d", (1, 64, 7, 7), 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    return dataclasses.replace(plain, **changes)


@pytest.mark.parametrize(
    ("changes", "pixels_times_taps"),
    [
        ({}, (7 * 3 - 2) ** 2),
        ({"pads": (0, 0, 0, 0)}, (5 * 3) ** 2),
        # Rows 0, 2, 4 and 6 stand in the middle: the first and the last lose a tap.
        ({"strides": (2, 2)}, (4 * 3 - 2) ** 2),
        ({"dilations": (2, 2), "pads": (2, 2, 2, 2)}, (7 * 3 - 4) ** 2),
        ({"kernel": (1, 1), "pads": (0, 0, 0, 0)}, 49),
    ],
)
def test_padding_is_not_counted(changes: dict[str, object], pixels_times_taps: int) -> None:
    assert shape(**changes).valid_macs == pixels_times_taps * 64 * 64


def test_the_share_of_the_bound() -> None:
    layer = LayerResult(shape(), ("conv",), 2.0, 2.0, 1.0, 0.5, 2.0, 2.0, True, bound_gmacs=10.0)
    assert layer.gmacs_per_second == pytest.approx(19**2 * 64 * 64 / 0.5e-3 / 1e9)
    assert layer.bound_share == pytest.approx(layer.gmacs_per_second / 10)
    assert dataclasses.replace(layer, bound_gmacs=None).bound_share is None
