"""A whole detector as one ONNX model: its parts exported and rewritten, then joined by standard operators."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.ssd import SSD

from dirnet_convert.errors import UsageError
from dirnet_convert.onnx_export.detector.faster_rcnn import (
    pooled_names,
    proposals,
    region_detections,
    region_features,
)
from dirnet_convert.onnx_export.detector.geometry import Geometry, geometry_of
from dirnet_convert.onnx_export.detector.parts import BoxPart, ImagePart, RawFasterRcnn, RawSsd
from dirnet_convert.onnx_export.detector.ssd import ssd_detections
from dirnet_convert.onnx_export.detector.steps import Found, Steps
from dirnet_convert.onnx_export.exporter import finish, run_float_passes
from dirnet_convert.onnx_export.modules import export_copy
from dirnet_convert.onnx_export.passes import run_passes
from dirnet_convert.onnx_export.trace import Batch, trace
from dirnet_convert.runtime.detector import OUTPUT_NAMES, DetectorInfo, info_entries

# What the nodes behind the layers are named for.
PART = "detections"
_BOX_PART = "box_part"
# Regions whose features the second stage is traced with; their number is free in the model.
_TRACED_REGIONS = 2


class Form(enum.Enum):
    """Which rewrites a network gets."""

    BINARY = "binary"
    FLOAT = "float"


@dataclass(frozen=True)
class DetectorModel:
    """An exported detector and the module whose outputs the model has under the same names inside."""

    proto: onnx.ModelProto
    raw: RawSsd | RawFasterRcnn
    geometry: Geometry
    changes: dict[str, int]


def supported(detector: nn.Module) -> SSD | FasterRCNN:
    """Return ``detector``.

    Raises:
        UsageError: it is neither an SSD nor a Faster R-CNN.
    """
    # A Mask R-CNN is a Faster R-CNN with one more output, which the model would not give.
    if isinstance(detector, SSD) or (isinstance(detector, FasterRCNN) and not detector.roi_heads.has_mask()):
        return detector
    raise UsageError(
        f"{type(detector).__name__} cannot be exported with its boxes; SSD and Faster R-CNN can."
    )


def detector_model(detector: nn.Module, image: Tensor, info: DetectorInfo, form: Form) -> DetectorModel:
    """Return ``detector`` as a model of one image like ``image`` (1, C, H, W) with boxes, labels and scores.

    Raises:
        UsageError: it is neither an SSD nor a Faster R-CNN, or changes the image itself, or ``info`` says
            another size.
        DirnetError: PyTorch cannot export one of its parts.
    """
    known = supported(detector).cpu().eval()
    geometry = geometry_of(known, image)
    if (geometry.height, geometry.width) != (info.height, info.width):
        raise UsageError(
            f"The image is {geometry.height}x{geometry.width}, and the detector is said to take "
            f"{info.height}x{info.width}; give an image of that size."
        )
    build = _ssd if isinstance(known, SSD) else _faster_rcnn
    model, raw, changes = build(known, image, geometry, form)
    proto = finish(model)
    onnx.helper.set_model_props(proto, info_entries(info))
    return DetectorModel(proto, raw, geometry, changes)


Built = tuple[ir.Model, RawSsd | RawFasterRcnn, dict[str, int]]


def _ssd(detector: SSD, image: Tensor, geometry: Geometry, form: Form) -> Built:
    raw = RawSsd(detector)
    model, changes = _part(raw, image, raw.output_names, Batch.ONE, form)
    steps = Steps(model.graph, PART)
    found = ssd_detections(steps, detector, geometry, *model.graph.outputs)
    _answer(model.graph, steps, found, detector.detections_per_img)
    return model, raw, changes


def _faster_rcnn(detector: FasterRCNN, image: Tensor, geometry: Geometry, form: Form) -> Built:
    pool = detector.roi_heads.box_roi_pool
    first = ImagePart(detector, pooled_names(pool, geometry), len(geometry.anchors))
    second = BoxPart(detector)
    model, changes = _part(first, image, first.output_names, Batch.ONE, form)
    channels = geometry.maps[first.pooled[0]][0]
    features = torch.zeros(_TRACED_REGIONS, channels, *pool.output_size)
    box_model, box_changes = _part(second, features, second.output_names, Batch.FREE, form)

    steps = Steps(model.graph, PART)
    values = {value.name: value for value in model.graph.outputs}
    levels = range(len(geometry.anchors))
    regions = proposals(
        steps,
        detector,
        geometry,
        [values[f"objectness.{level}"] for level in levels],
        [values[f"box_codes.{level}"] for level in levels],
    )
    maps = {name: values[f"features.{name}"] for name in first.pooled}
    region_maps, regions = region_features(steps, pool, geometry, maps, regions)
    class_logits, box_codes = append_model(model.graph, box_model, region_maps)
    found = region_detections(steps, detector, geometry, class_logits, box_codes, regions)
    _answer(model.graph, steps, found, detector.roi_heads.detections_per_img)
    both = {name: changes[name] + box_changes[name] for name in changes}
    return model, RawFasterRcnn(first, second), both


def _part(
    part: nn.Module, example: Tensor, outputs: tuple[str, ...], batch: Batch, form: Form
) -> tuple[ir.Model, dict[str, int]]:
    model = trace(export_copy(part), example, outputs=outputs, batch=batch)
    if form is Form.BINARY:
        return model, run_passes(model)
    run_float_passes(model)
    return model, {}


def append_model(graph: ir.Graph, model: ir.Model, fed: ir.Value) -> tuple[ir.Value, ...]:
    """Move the nodes of ``model``, which has one input, behind those of ``graph``; return its outputs.

    ``fed`` takes the place of the input; values inside are renamed, the outputs keep their names.
    """
    moved = model.graph
    (entry,), outputs = list(moved.inputs), tuple(moved.outputs)
    for node in moved:
        for value in node.outputs:
            if value not in outputs:
                value.name = f"{_BOX_PART}/{value.name}"
    ir.convenience.replace_all_uses_with(entry, fed)
    for name, value in list(moved.initializers.items()):
        del moved.initializers[name]
        value.name = f"{_BOX_PART}/{name}"
        graph.register_initializer(value)
    moved.outputs.clear()
    nodes = list(moved)
    moved.remove(nodes)
    graph.extend(nodes)
    graph.opset_imports.update(moved.opset_imports)
    return outputs


def _answer(graph: ir.Graph, steps: Steps, found: Found, most: int) -> None:
    """Make the ``most`` best of ``found`` the outputs of ``graph``."""
    best = steps.best(found.scores, most)
    graph.outputs.clear()
    labels = steps.op("Add", found.groups, steps.constant(1, "int64"))
    answers = zip(OUTPUT_NAMES, (found.boxes, labels, found.scores), ((4,), (), ()), strict=True)
    for name, value, columns in answers:
        answer = steps.op("Gather", value, best, name=name, axis=0)
        kind = ir.DataType.INT64 if value is labels else ir.DataType.FLOAT
        answer.type, answer.shape = ir.TensorType(kind), ir.Shape(["M", *columns])
        graph.outputs.append(answer)
