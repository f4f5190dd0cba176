"""Random ragged cases of every operator, and the comparison that all routes must pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pytest

from dirnet_convert.onnx_export.operators import OPERATORS, pack_bits

Comparison = Callable[[Iterable[np.ndarray], tuple[np.ndarray, ...], object], None]
SPECIAL = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40, 3e38], np.float32)


@dataclass(frozen=True)
class Case:
    """One node with its inputs; what is constant in a network is named in ``constants``."""

    operator: str
    inputs: dict[str, np.ndarray]
    attributes: dict[str, int | float | list[int]]

    @property
    def constants(self) -> tuple[str, ...]:
        return tuple(name for name in self.inputs if name not in ("X", "B", "residual"))

    def expected(self) -> tuple[np.ndarray, ...]:
        return OPERATORS[self.operator].reference(self.inputs, self.attributes)

    def feeds(self, constants: tuple[str, ...]) -> dict[str, np.ndarray]:
        return {name: value for name, value in self.inputs.items() if name not in constants}

    def __str__(self) -> str:
        shapes = {name: value.shape for name, value in self.inputs.items()}
        return f"{self.operator} {self.attributes} {shapes}"


class CaseMaker:
    """Draws cases from a seed."""

    def __init__(self, operator: str, seed: int) -> None:
        self._operator = operator
        self._rng = np.random.default_rng([seed, sorted(OPERATORS).index(operator)])

    def _int(self, low: int, high: int) -> int:
        return int(self._rng.integers(low, high, endpoint=True))

    def _floats(self, *shape: int) -> np.ndarray:
        # Small whole numbers make values that meet a threshold or a bound exactly.
        if self._rng.random() < 0.5:
            values = self._rng.integers(-3, 3, shape, endpoint=True).astype(np.float32)
        else:
            values = self._rng.standard_normal(shape, np.float32)
        if self._rng.random() < 0.4:
            spots = self._rng.random(shape) < 0.15
            values = np.where(spots, self._rng.choice(SPECIAL, shape), values)
        return values

    def _bits(self, *shape: int) -> np.ndarray:
        return pack_bits(self._rng.random(shape) < 0.5)

    def _batch(self) -> int:
        return int(self._rng.choice([0, 1, 2, 3], p=[0.05, 0.5, 0.3, 0.15]))

    def _channels(self) -> int:
        return int(self._rng.choice([self._int(1, 130), 32, 64, 128], p=[0.7, 0.1, 0.1, 0.1]))

    def draw(self) -> Case:
        if self._operator == "Binarize":
            return self._binarize()
        if self._operator == "BinaryGemm":
            return self._gemm()
        if self._operator == "BinaryMaxPool2d":
            return self._max_pool()
        return self._convolution()

    def _binarize(self) -> Case:
        channels = self._channels()
        leading = [self._batch(), *(self._int(1, 4) for _ in range(self._int(0, 2)))]
        inputs = {"X": self._floats(*leading, channels), "threshold": self._floats(channels)}
        return Case("Binarize", inputs, {"channels": channels})

    def _gemm(self) -> Case:
        channels, out_channels = self._channels(), self._int(1, 70)
        leading = [self._batch(), *(self._int(1, 4) for _ in range(self._int(0, 2)))]
        inputs = {
            "B": self._bits(*leading, channels),
            "W": self._bits(out_channels, channels),
            "scale": self._floats(out_channels),
            "bias": self._floats(out_channels),
        }
        return Case("BinaryGemm", inputs, {"channels": channels})

    def _window(self) -> tuple[dict[str, list[int]], int, int]:
        kernel = [self._int(1, 4), self._int(1, 4)]
        dilations = [self._int(1, 2), self._int(1, 3)]
        pads = [self._int(0, kernel[axis % 2]) for axis in range(4)]
        spans = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, kernel, strict=True)]
        height = self._int(max(1, spans[0] - pads[0] - pads[2]), spans[0] + 6)
        width = self._int(max(1, spans[1] - pads[1] - pads[3]), spans[1] + 6)
        window = {
            "kernel_shape": kernel,
            "strides": [self._int(1, 3), self._int(1, 3)],
            "pads": pads,
            "dilations": dilations,
        }
        return window, height, width

    def _max_pool(self) -> Case:
        window, *size = self._window()
        channels, ceil_mode = self._channels(), self._int(0, 1)
        for axis in range(2):
            if ceil_mode == 1 and self._rng.random() < 0.4:
                size[axis] = self._too_small(window, axis)
        inputs = {"B": self._bits(self._batch(), *size, channels)}
        return Case("BinaryMaxPool2d", inputs, {"channels": channels, **window, "ceil_mode": ceil_mode})

    def _too_small(self, window: dict[str, list[int]], axis: int) -> int:
        """Draw an extent that lacks less than a stride, for which ceil_mode makes up, and little padding."""
        before = window["pads"][axis] = self._int(0, min(1, window["pads"][axis]))
        window["pads"][axis + 2] = 0
        span = window["dilations"][axis] * (window["kernel_shape"][axis] - 1) + 1
        stride = window["strides"][axis]
        return max(1, span - before - self._int(min(1, stride - 1), stride - 1))

    def _convolution(self) -> Case:
        window, height, width = self._window()
        group = int(self._rng.choice([1, 1, 1, 2, 3, 4]))
        channels = self._channels() if group == 1 else group * self._int(1, 40)
        out_channels = self._channels() if group == 1 else group * self._int(1, 20)
        batch = self._batch()
        kernel_h, kernel_w = window["kernel_shape"]
        spans = [
            dilation * (size - 1) + 1
            for dilation, size in zip(window["dilations"], window["kernel_shape"], strict=True)
        ]
        top, left, bottom, right = window["pads"]
        out_h = (height + top + bottom - spans[0]) // window["strides"][0] + 1
        out_w = (width + left + right - spans[1]) // window["strides"][1] + 1
        inputs = {
            "B": self._bits(batch, height, width, channels),
            "W": self._bits(out_channels, kernel_h, kernel_w, channels // group),
            "scale": self._floats(out_channels),
            "bias": self._floats(out_channels),
            "slope": np.nan_to_num(self._floats(out_channels), posinf=2.0, neginf=-2.0),
            "residual": self._floats(batch, out_h, out_w, out_channels),
            "threshold": self._floats(out_channels),
        }
        spec = OPERATORS[self._operator]
        attributes: dict[str, int | float | list[int]] = {"channels": channels, **window, "group": group}
        if "slope" in spec.input_names():
            low, high = sorted(float(bound) for bound in self._rng.integers(-20, 20, 2))
            attributes["clip_min"] = float(self._rng.choice([-np.inf, low, 0.0]))
            attributes["clip_max"] = float(self._rng.choice([np.inf, max(high, 0.0), 6.0]))
        return Case(self._operator, {name: inputs[name] for name in spec.input_names()}, attributes)


@pytest.fixture
def draw_case() -> Callable[[str, int], Case]:
    """Draw the case of an operator that a seed stands for."""
    return lambda operator, seed: CaseMaker(operator, seed).draw()


def _compare(found: Iterable[np.ndarray], expected: tuple[np.ndarray, ...], what: object, bits: bool) -> None:
    for result, wanted in zip(found, expected, strict=True):
        assert result.dtype == wanted.dtype and result.shape == wanted.shape, str(what)
        if wanted.dtype == np.float32:
            number = ~np.isnan(wanted)
            assert np.array_equal(np.isnan(result), ~number), f"NaN in other places: {what}"
            result, wanted = result[number], wanted[number]
            if bits:
                result, wanted = result.view(np.uint32), wanted.view(np.uint32)
        assert np.array_equal(result, wanted), f"{np.sum(result != wanted)} values differ: {what}"


@pytest.fixture
def assert_same() -> Comparison:
    """Compare outputs bit for bit; of a NaN only its place counts, since its payload is the processor's."""
    return lambda found, expected, what: _compare(found, expected, what, bits=True)


@pytest.fixture
def assert_same_numbers() -> Comparison:
    """Compare outputs exactly but for the sign of a zero, which ONNX Runtime's operators do not keep."""
    return lambda found, expected, what: _compare(found, expected, what, bits=False)
