"""Detectors at work: boxes come back in the image's own pixels, and a wrong file is one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from dirnet_convert.data.boxes import prepare_stretched
from dirnet_convert.data.source import DataInfo
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.runtime.detector import DetectorInfo, info_entries, load_detector
from dirnet_convert.runtime.session import Kernels

INFO = DetectorInfo(("cat", "dog"), 8, 16, (0.5, 0.4, 0.3), (0.2, 0.25, 0.5))
BOXES = np.array([[0, 0, 16, 8], [4, 2, 8, 4]], np.float32)


def model(entries: dict[str, str]) -> bytes:
    """A detector that finds the same two objects in every image; the first score is the image's mean."""
    constants = {
        "found": BOXES,
        "kinds": np.array([2, 7], np.int64),
        "low": np.array([0.25], np.float32),
        "one": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "one"], ["first"]),
        helper.make_node("Concat", ["first", "low"], ["scores"], axis=0),
        helper.make_node("Identity", ["found"], ["boxes"]),
        helper.make_node("Identity", ["kinds"], ["labels"]),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, INFO.height, INFO.width])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["M", 4]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, ["M"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["M"]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    helper.set_model_props(made, entries)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def test_boxes_come_back_in_the_images_own_pixels() -> None:
    detector = load_detector(model(info_entries(INFO)), kernels=Kernels.STOCK)
    assert detector.info == INFO
    image = Image.new("RGB", (160, 24), (200, 100, 50))
    found = detector.detect(image)
    np.testing.assert_allclose(found.boxes, BOXES * [10, 3, 10, 3])
    assert found.names == ("dog", "class 7") and found.labels.tolist() == [2, 7]
    pixels = (np.array([200, 100, 50]) / 255 - INFO.mean) / INFO.std
    np.testing.assert_allclose(found.scores, [pixels.mean(), 0.25], rtol=1e-5)
    array = detector.detect(np.asarray(image))
    np.testing.assert_array_equal(array.boxes, found.boxes)
    kept = found.above(0.3)
    assert kept.names == ("dog",) and len(kept.boxes) == len(kept.scores) == 1


def test_predict_tensors_answers_as_torchvision_does() -> None:
    detector = load_detector(model(info_entries(INFO)), kernels=Kernels.STOCK)
    images = torch.stack([torch.full((3, 8, 16), value) for value in (0.5, 0.75)])
    one, other = detector.predict_tensors(images)
    assert one["boxes"].tolist() == BOXES.tolist() and one["labels"].dtype == torch.int64
    assert one["scores"][0] == 0.5 and other["scores"][0] == 0.75


def test_an_image_is_prepared_as_for_training(generator: torch.Generator) -> None:
    pixels = torch.randint(0, 256, (37, 51, 3), generator=generator, dtype=torch.uint8)
    image = Image.fromarray(pixels.numpy())
    square = DetectorInfo(("cat",), 24, 24, INFO.mean, INFO.std)
    detector = load_detector(model(info_entries(square)), kernels=Kernels.STOCK)
    info = DataInfo("voc", 1, ("cat",), 3, 24, INFO.mean, INFO.std)
    np.testing.assert_allclose(detector.prepare(image), prepare_stretched(image, info), atol=1e-6)


def test_other_files_and_arrays_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model file"):
        load_detector(tmp_path / "none.onnx", kernels=Kernels.STOCK)
    with pytest.raises(UsageError, match="gives no boxes"):
        load_detector(model({}), kernels=Kernels.STOCK)
    for key in ("dirnet.class_names", "dirnet.input_size"):
        for broken in ("[", "3"):
            with pytest.raises(DirnetError, match="does not say what it finds"):
                load_detector(model({**info_entries(INFO), key: broken}), kernels=Kernels.STOCK)
    detector = load_detector(model(info_entries(INFO)), kernels=Kernels.STOCK)
    for array in (np.zeros((8, 16), np.uint8), np.zeros((8, 16, 3), np.float32)):
        with pytest.raises(UsageError, match="expected as uint8"):
            detector.detect(array)
