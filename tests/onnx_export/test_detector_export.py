"""Exported detectors: the same boxes as torchvision's, and a sentence that names the step where not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import detector_networks as networks
import numpy as np
import onnx
import pytest
import torch
import torchvision
from torch import nn

from dirnet_convert.binarize.layers import BinaryConv2d
from dirnet_convert.convert.calibrate import calibrate
from dirnet_convert.data.registry import open_data
from dirnet_convert.errors import UsageError
from dirnet_convert.models.detectors import FeatureForward
from dirnet_convert.onnx_export.checked import available_engines
from dirnet_convert.onnx_export.detector import export
from dirnet_convert.onnx_export.detector.export import verified_detector, verified_float_detector
from dirnet_convert.onnx_export.detector.model import DetectorModel, Form, detector_model
from dirnet_convert.onnx_export.detector.verify import shared_detections, verify_detector
from dirnet_convert.onnx_export.verify_report import ExportMismatch
from dirnet_convert.recipe import DataOptions, Head, Threshold
from dirnet_convert.runtime.detector import load_detector
from dirnet_convert.runtime.session import Kernels

KINDS = tuple(networks.BUILDERS)
# Sizes at which every map of the network still has a pixel.
NAMED = {
    "ssd300_vgg16": 300,
    "ssdlite320_mobilenet_v3_large": 128,
    "fasterrcnn_resnet50_fpn": 96,
    "fasterrcnn_resnet18_fpn": 96,
}


@functools.cache
def float_model(kind: str) -> DetectorModel:
    return detector_model(networks.BUILDERS[kind](), networks.images(1), networks.info(), Form.FLOAT)


@functools.cache
def binary_model(kind: str) -> DetectorModel:
    student = networks.binarized(networks.BUILDERS[kind](), head=Head.BINARIZE)
    return detector_model(student, networks.images(1), networks.info(), Form.BINARY)


def check(kind: str, model: DetectorModel) -> None:
    verify_detector(networks.BUILDERS[kind](), model, networks.images(2), engines=(Kernels.STOCK,))


@pytest.mark.parametrize("kind", KINDS)
def test_a_float_detector_gives_torchvisions_boxes(kind: str) -> None:
    detector = networks.BUILDERS[kind]()
    loaded = load_detector(float_model(kind).proto.SerializeToString(), kernels=Kernels.STOCK)
    batch = networks.images(4)
    with torch.no_grad():
        own = detector(batch)
    found = loaded.predict_tensors(batch)
    assert sum(len(one["labels"]) for one in own) > 40
    for got, expected in zip(found, own, strict=True):
        assert got["labels"].dtype == torch.int64 and got["boxes"].shape == (len(got["scores"]), 4)
        assert (got["scores"].diff() <= 0).all()
        assert shared_detections(got, expected) == len(expected["scores"]) == len(got["scores"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_binarized_detector_with_a_binary_head_is_verified_and_written(kind: str, tmp_path: Path) -> None:
    student = networks.binarized(networks.BUILDERS[kind](), head=Head.BINARIZE)
    in_head = [
        name
        for name, layer in student.named_modules()
        if isinstance(layer, BinaryConv2d) and not name.startswith("backbone.body")
    ]
    assert in_head
    path = tmp_path / "model.onnx"
    written = verified_detector(student, networks.images(2), networks.info(), path).write()
    nodes = {name.partition("#")[0] for name in written.result.binary_nodes}
    assert nodes >= set(in_head)
    assert {d.kernels for d in written.detections} == set(available_engines())
    for report in written.detections:
        assert report.boxes > 0 and report.agreement is not None
        assert report.steps.score < 2e-6 and report.steps.box < 1e-3
    loaded = load_detector(path, kernels=Kernels.STOCK)
    assert loaded.info == networks.info()
    assert onnx.load(path).functions


def test_a_binary_box_head_is_verified_and_written(tmp_path: Path) -> None:
    layers = ("roi_heads.box_head.fc6", "roi_heads.box_head.fc7")
    student = networks.binarized(networks.faster_rcnn(), binarize=layers)
    calibrate(FeatureForward(student), networks.images(4), Threshold.MEDIAN)
    written = verified_detector(student, networks.images(2), networks.info(), tmp_path / "model.onnx").write()
    assert set(layers) <= {name.partition("#")[0] for name in written.result.binary_nodes}
    kinds = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node if node.domain}
    assert any(kind.startswith("BinaryGemm") for kind in kinds)


@pytest.mark.parametrize("kind", KINDS)
def test_a_detector_that_finds_nothing_gives_no_box(kind: str, tmp_path: Path) -> None:
    detector = networks.BUILDERS[kind]()
    if kind == "ssd":
        detector.score_thresh = 0.9999
    else:
        detector.roi_heads.score_thresh = 0.9999
    path = tmp_path / "teacher.onnx"
    verified_float_detector(detector, networks.images(1), networks.info(), path).write()
    (found,) = load_detector(path, kernels=Kernels.STOCK).predict_tensors(networks.images(1))
    assert found["boxes"].shape == (0, 4) and found["labels"].shape == found["scores"].shape == (0,)


def test_proposals_below_a_threshold_are_left_out(tmp_path: Path) -> None:
    detector = networks.faster_rcnn()
    detector.rpn.score_thresh = 0.7
    verified_float_detector(detector, networks.images(2), networks.info(), tmp_path / "some.onnx").write()
    # Then no region is left at all, and the second stage has nothing to do.
    detector.rpn.score_thresh = 1.1
    path = tmp_path / "none.onnx"
    verified_float_detector(detector, networks.images(1), networks.info(), path).write()
    (found,) = load_detector(path, kernels=Kernels.STOCK).predict_tensors(networks.images(1))
    assert len(found["scores"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_torchvisions_detectors_are_exported_binarized(name: str, tmp_path: Path) -> None:
    size = NAMED[name]
    teacher = networks.named(name, size)
    student = networks.binarized(teacher, size)
    batch = networks.images(1, size)
    written = verified_detector(student, batch, networks.info(size), tmp_path / "model.onnx").write()
    assert len(written.result.binary_nodes) > 10
    assert all(report.boxes > 0 for report in written.detections)


def change_input(
    operator: str, index: int, change: Callable[[np.ndarray], np.ndarray], nth: int = 0
) -> Callable:
    """Return what changes a constant at one input of the nth such node behind the layers."""

    def corrupt(proto: onnx.ModelProto) -> None:
        found = [n for n in proto.graph.node if n.op_type == operator and n.name.startswith("detections")]
        node = found[nth]
        (tensor,) = (t for t in proto.graph.initializer if t.name == node.input[index])
        array = change(onnx.numpy_helper.to_array(tensor).copy())
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, "corrupted"))
        node.input[index] = "corrupted"

    return corrupt


def change_attribute(operator: str, name: str, value: float) -> Callable:
    """Return what changes an attribute of all such nodes."""

    def corrupt(proto: onnx.ModelProto) -> None:
        for node in proto.graph.node:
            for attribute in node.attribute:
                if node.op_type == operator and attribute.name == name:
                    attribute.CopyFrom(onnx.helper.make_attribute(name, value))

    return corrupt


CORRUPTIONS = {
    "ssd overlap": ("ssd", change_input("NonMaxSuppression", 3, lambda v: v + 0.1), "the detections"),
    "ssd less overlap": ("ssd", change_input("NonMaxSuppression", 3, lambda v: v - 0.1), "the detections"),
    "ssd threshold": ("ssd", change_input("NonMaxSuppression", 4, lambda v: v + 0.5), "the detections"),
    "ssd fewer candidates": ("ssd", change_input("TopK", 1, lambda v: v - 30), "the detections"),
    "ssd more candidates": ("ssd", change_input("TopK", 1, lambda v: v + 30), "the detections"),
    "ssd box weights": ("ssd", change_input("Div", 1, lambda v: v * 1.01), "the detections"),
    "ssd labels": ("ssd", change_input("Add", 1, lambda v: v + 1, nth=-1), "the detections"),
    "rpn overlap": ("faster_rcnn", change_input("NonMaxSuppression", 3, lambda v: v - 0.1), "the proposals"),
    "rpn count": ("faster_rcnn", change_input("Min", 1, lambda v: v - 10, nth=6), "the proposals"),
    "pooling samples": ("faster_rcnn", change_attribute("RoiAlign", "sampling_ratio", 1), "the regions"),
    "pooling levels": (
        "faster_rcnn",
        change_input("GreaterOrEqual", 1, lambda v: v * 1.2, nth=-3),
        "the proposals",
    ),
    "box overlap": (
        "faster_rcnn",
        change_input("NonMaxSuppression", 3, lambda v: v + 0.1, nth=-1),
        "the detections",
    ),
    "box count": ("faster_rcnn", change_input("Min", 1, lambda v: v + 1, nth=-1), "at most 40"),
    "box threshold": (
        "faster_rcnn",
        change_input("NonMaxSuppression", 4, lambda v: v + 0.28, nth=-1),
        "the detections",
    ),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_wrong_step_behind_the_layers_is_found_and_named(name: str) -> None:
    kind, corrupt, step = CORRUPTIONS[name]
    right = float_model(kind)
    proto = onnx.ModelProto()
    proto.CopyFrom(right.proto)
    corrupt(proto)
    with pytest.raises(ExportMismatch, match=step):
        check(kind, DetectorModel(proto, right.raw, right.geometry, {}))


def test_a_wrong_binary_layer_of_a_detector_is_found_by_name(tmp_path: Path) -> None:
    student = networks.binarized(networks.ssd())
    model = detector_model(student, networks.images(1), networks.info(), Form.BINARY)
    (node, *_) = (n for n in model.proto.graph.node if n.op_type.startswith("BinaryConv2d"))
    (words,) = (t for t in model.proto.graph.initializer if t.name == node.input[1])
    array = onnx.numpy_helper.to_array(words).copy()
    array.flat[0] ^= np.uint64(1)
    words.CopyFrom(onnx.numpy_helper.from_array(array, words.name))
    with pytest.raises(ExportMismatch, match="packed weights") as caught:
        verify_detector(student, model, networks.images(1), engines=(Kernels.STOCK,))
    assert caught.value.layer == node.name


def test_nothing_is_written_where_detections_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = binary_model("ssd")
    proto = onnx.ModelProto()
    proto.CopyFrom(right.proto)
    CORRUPTIONS["ssd overlap"][1](proto)
    wrong = DetectorModel(proto, right.raw, right.geometry, {})
    monkeypatch.setattr(export, "detector_model", lambda *_: wrong)
    student = networks.binarized(networks.ssd(), head=Head.BINARIZE)
    with pytest.raises(ExportMismatch, match="the detections"):
        verified_detector(student, networks.images(2), networks.info(), tmp_path / "model.onnx").write()
    assert not list(tmp_path.iterdir())


def test_other_detectors_and_images_are_refused_in_a_sentence() -> None:
    retina = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    with pytest.raises(UsageError, match="RetinaNet cannot be exported"):
        detector_model(retina, networks.images(1), networks.info(), Form.FLOAT)
    with pytest.raises(UsageError, match="Sequential cannot be exported"):
        detector_model(nn.Sequential(), networks.images(1), networks.info(), Form.FLOAT)
    with pytest.raises(UsageError, match="64x64, and the detector is said to take 96x96"):
        detector_model(networks.ssd(), networks.images(1), networks.info(96), Form.FLOAT)
    padded = networks.faster_rcnn()
    padded.transform = torchvision.models.detection.transform.GeneralizedRCNNTransform(
        48, 48, [0.0] * 3, [1.0] * 3, fixed_size=(48, 48)
    )
    with pytest.raises(UsageError, match="changes images of 64x64 itself"):
        detector_model(padded, networks.images(1), networks.info(), Form.FLOAT)


@pytest.mark.real_data
@pytest.mark.parametrize("kind", KINDS)
def test_detections_on_photographs_are_torchvisions(kind: str, real_data_root: Path, tmp_path: Path) -> None:
    options = DataOptions(
        "voc", str(real_data_root / "bccd"), networks.SIZE, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    photographs = open_data(options).calibration_images(8, networks.SEED)
    student = networks.binarized(networks.BUILDERS[kind](), head=Head.BINARIZE)
    written = verified_detector(student, photographs, networks.info(), tmp_path / "model.onnx").write()
    for report in written.detections:
        assert report.boxes > 8 and report.agreement is not None and report.agreement > 0.5
