"""Draws the boxes of found objects into an image, and writes images."""

from __future__ import annotations

import colorsys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dirnet_convert.errors import UsageError
from dirnet_convert.files import replacing
from dirnet_convert.runtime.detector import Detections

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
# Shares of the image's shorter edge, and the least of each in pixels.
_LINE_SHARE, _LEAST_LINE = 1 / 250, 2
_TEXT_SHARE, _LEAST_TEXT = 1 / 32, 11
# Steps of the golden ratio around the colour circle keep neighbouring labels apart.
_HUE_STEP = 0.618034


def draw_detections(image: Image.Image, found: Detections) -> Image.Image:
    """Return a copy of ``image`` with a box, a name and a score in percent for each object."""
    drawn = image.convert("RGB")
    if drawn is image:
        drawn = image.copy()
    pen = ImageDraw.Draw(drawn)
    edge = min(drawn.size)
    line = max(_LEAST_LINE, round(edge * _LINE_SHARE))
    font = ImageFont.load_default(max(_LEAST_TEXT, round(edge * _TEXT_SHARE)))
    # The likeliest last, so that nothing covers it.
    order = range(len(found.names) - 1, -1, -1)
    for k in order:
        colour = label_colour(int(found.labels[k]))
        left, top, right, bottom = (float(value) for value in found.boxes[k])
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=line)
        text = f"{found.names[k]} {100 * float(found.scores[k]):.0f} %"
        _write(pen, (left, top), text, colour, font, drawn.size)
    return drawn


def label_colour(label: int) -> tuple[int, int, int]:
    """Return the colour of ``label``, the same in every image."""
    red, green, blue = colorsys.hsv_to_rgb(label * _HUE_STEP % 1.0, 0.9, 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)


def _write(
    pen: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    # Above the box where there is room, and inside the image in any case.
    x = min(max(0.0, corner[0]), max(0.0, size[0] - width))
    y = corner[1] - height if corner[1] >= height else max(0.0, corner[1])
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    pen.text((x + 2 - left, y + 2 - top), text, fill=(255, 255, 255), font=font)


def check_image_path(path: Path) -> None:
    """Refuse a path that no image can be written to.

    Raises:
        UsageError: it is a folder, or its ending names no image format.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the image to write, for example {path / 'boxes.png'}.")
    _format(path)


def save_image(image: Image.Image, path: Path) -> None:
    """Write ``image`` in the format that the path's ending names, whole or not at all.

    Raises:
        UsageError: the ending names no image format.
        DirnetError: the folder cannot be written.
    """
    kind = _format(path)
    with replacing(path) as part:
        image.save(part, kind)


def _format(path: Path) -> str:
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in _FORMATS:
        raise UsageError(f"{path}: '{path.suffix}' is no ending of an image; name a .png or a .jpg file.")
    return kind
