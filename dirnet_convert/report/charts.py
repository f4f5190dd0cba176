"""Curves as inline SVG, drawn without any library; every text in them is escaped."""

from __future__ import annotations

import colorsys
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 520, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 10, 34
_TICKS = 5
# With more lines than this a legend would cover the page: names show up under the pointer instead.
_LEGEND = 8
# With more points than this, dots would only make the page heavy.
_DOTTED = 3000


@dataclass(frozen=True)
class Line:
    """One curve: its name and its points (x, y), in the order of x."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """Curves that share their axes; ``logarithmic`` is for values above 0 that span decades."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    logarithmic: bool = False


def draw_chart(chart: Chart) -> str:
    """Return ``chart`` as a <figure> with an SVG, or nothing where it has no points."""
    points = [point for line in chart.lines for point in line.points]
    if not points:
        return ""
    logarithmic = chart.logarithmic and min(y for _, y in points) > 0
    x_axis = _Axis.over([x for x, _ in points], False)
    y_axis = _Axis.over([y for _, y in points], logarithmic)
    colours = _colours(len(chart.lines))
    parts = [*_grid(x_axis, y_axis)]
    for line, colour in zip(chart.lines, colours, strict=True):
        parts.append(_curve(line, colour, x_axis, y_axis, dotted=len(points) <= _DOTTED))
    drawing = "\n".join(parts)
    caption = f"{chart.title}, {chart.unit}" if chart.unit else chart.title
    return (
        f"<figure>\n<figcaption>{html.escape(caption)}</figcaption>\n"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(caption)}">\n{drawing}\n'
        f"</svg>\n{_legend(chart.lines, colours)}</figure>"
    )


@dataclass(frozen=True)
class _Axis:
    """A range of values and where its ticks are."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool

    @classmethod
    def over(cls, values: Sequence[float], logarithmic: bool) -> _Axis:
        low, high = min(values), max(values)
        if logarithmic:
            first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
            last = max(last, first + 1)
            step = -(-(last - first) // _TICKS)
            ticks = tuple(10.0**power for power in range(first, last + 1, step))
            return cls(10.0**first, 10.0**last, ticks, True)
        if low == high:
            low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
        step = _round_step((high - low) / _TICKS)
        first, last = math.floor(low / step), math.ceil(high / step)
        return cls(first * step, last * step, tuple(k * step for k in range(first, last + 1)), False)

    def share(self, value: float) -> float:
        """Return where ``value`` lies, from 0 to 1."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is at least ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _place(x: float, y: float, x_axis: _Axis, y_axis: _Axis) -> tuple[float, float]:
    across = _LEFT + x_axis.share(x) * (WIDTH - _LEFT - _RIGHT)
    down = HEIGHT - _BOTTOM - y_axis.share(y) * (HEIGHT - _TOP - _BOTTOM)
    return round(across, 1), round(down, 1)


def _grid(x_axis: _Axis, y_axis: _Axis) -> list[str]:
    parts = []
    for tick in y_axis.ticks:
        x, y = _place(x_axis.low, tick, x_axis, y_axis)
        parts.append(f'<line class="grid" x1="{x}" y1="{y}" x2="{WIDTH - _RIGHT}" y2="{y}"/>')
        parts.append(f'<text x="{x - 6}" y="{y + 4}" text-anchor="end">{tick:.4g}</text>')
    for tick in x_axis.ticks:
        # Epochs are whole numbers.
        if tick != int(tick):
            continue
        x, y = _place(tick, y_axis.low, x_axis, y_axis)
        parts.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{tick:.0f}</text>')
    parts.append(f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 3}" text-anchor="end">epoch</text>')
    return parts


def _curve(line: Line, colour: str, x_axis: _Axis, y_axis: _Axis, *, dotted: bool) -> str:
    places = [_place(x, y, x_axis, y_axis) for x, y in line.points]
    name = html.escape(line.name)
    path = " ".join(f"{x},{y}" for x, y in places)
    curve = f'<polyline stroke="{colour}" points="{path}"><title>{name}</title></polyline>'
    if not dotted:
        return curve
    dots = "".join(
        f'<circle cx="{x}" cy="{y}" r="2" fill="{colour}"><title>{name}, epoch {point[0]:g}: {point[1]:.5g}'
        "</title></circle>"
        for (x, y), point in zip(places, line.points, strict=True)
    )
    return curve + dots


def _legend(lines: Sequence[Line], colours: Sequence[str]) -> str:
    if len(lines) > _LEGEND:
        first, last = html.escape(lines[0].name), html.escape(lines[-1].name)
        return (
            f'<p class="legend"><span style="background:{colours[0]}"></span>{first} to '
            f'<span style="background:{colours[-1]}"></span>{last}; the pointer shows the names.</p>\n'
        )
    entries = "".join(
        f'<span style="background:{colour}"></span>{html.escape(line.name)} '
        for line, colour in zip(lines, colours, strict=True)
    )
    return f'<p class="legend">{entries}</p>\n'


def _colours(count: int) -> list[str]:
    """Return that many colours, from blue to red."""
    colours = []
    for k in range(count):
        hue = 0.6 * (1 - k / max(count - 1, 1))
        red, green, blue = colorsys.hls_to_rgb(hue, 0.45, 0.75)
        colours.append(f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}")
    return colours
