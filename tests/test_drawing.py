"""Boxes are drawn where they are, in the colour of their label, and images are written whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dirnet_convert.drawing import check_image_path, draw_detections, label_colour, save_image
from dirnet_convert.errors import UsageError
from dirnet_convert.runtime.detector import Detections

WHITE = (255, 255, 255)


def detections(*boxes: tuple[float, float, float, float]) -> Detections:
    labels = np.arange(1, len(boxes) + 1)
    names = tuple(f"kind {label}" for label in labels)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), labels, names, np.full(len(boxes), 0.75))


def test_each_box_has_its_edge_and_the_inside_stays() -> None:
    image = Image.new("RGB", (200, 160), WHITE)
    drawn = draw_detections(image, detections((20, 40, 80, 90), (110, 60, 190, 150)))
    for label, (x, y) in ((1, (50, 89)), (1, (79, 60)), (2, (150, 149)), (2, (110, 100))):
        assert drawn.getpixel((x, y)) == label_colour(label)
    assert drawn.getpixel((50, 70)) == drawn.getpixel((5, 150)) == WHITE
    assert label_colour(1) != label_colour(2)
    assert np.asarray(image).min() == 255, "the given image is left as it was"


def test_a_name_stands_above_its_box_and_never_outside_the_image() -> None:
    image = Image.new("RGB", (120, 100), WHITE)
    above = np.asarray(draw_detections(image, detections((10, 50, 60, 90))))[:49]
    assert (above != 255).any()
    corner = np.asarray(draw_detections(image, detections((100, 0, 119, 20))))
    assert (corner[2:12, 60:100] != 255).any(), "moved to the left, since it is wider than the box"


def test_nothing_found_and_boxes_without_area_are_drawn_too() -> None:
    grey = Image.new("L", (60, 40), 128)
    plain = draw_detections(grey, detections())
    assert plain.mode == "RGB" and np.asarray(plain).std() == 0
    draw_detections(Image.new("RGB", (1, 1)), detections((0, 0, 0, 0), (5, 5, 5, 5)))


@pytest.mark.parametrize("name", ["boxes.png", "boxes.JPG", "new/boxes.webp"])
def test_an_image_is_written_in_the_format_of_its_ending(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    check_image_path(path)
    save_image(Image.new("RGB", (30, 20), (10, 200, 30)), path)
    with Image.open(path) as image:
        assert image.size == (30, 20)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_path_that_is_no_images_is_refused(tmp_path: Path) -> None:
    for name in ("boxes", "boxes.txt", "boxes.pdf"):
        with pytest.raises(UsageError, match="no ending of an image"):
            check_image_path(tmp_path / name)
    with pytest.raises(UsageError, match="is a folder"):
        check_image_path(tmp_path)
