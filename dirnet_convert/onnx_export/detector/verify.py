"""Checks an exported detector: its layers, the steps behind them, and what comes out with each on its own."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from dirnet_convert.binarize.held_weights import held_weights
from dirnet_convert.onnx_export.detector.model import DetectorModel
from dirnet_convert.onnx_export.detector.postprocessing import StepErrors, check_steps, exposed_names
from dirnet_convert.onnx_export.probe import Ends, open_probe, run_probe
from dirnet_convert.onnx_export.verify import verify_export
from dirnet_convert.onnx_export.verify_report import ENGINE_NAMES, Tolerances, VerifyReport
from dirnet_convert.runtime.session import Kernels

# What counts as the same detection where bits may have flipped on the way.
_SAME_OVERLAP = 0.99
_SAME_SCORE = 1e-2


@dataclass(frozen=True)
class DetectionReport:
    """One engine's detections on all images.

    ``steps``: the worst error of a step behind the layers, given what the engine fed to it; ``agreement``:
    the share of detections that PyTorch, left to itself, has too, None where there are none.
    """

    kernels: Kernels
    boxes: int
    steps: StepErrors
    agreement: float | None


@dataclass(frozen=True)
class DetectorReport:
    """The layers' comparison and each engine's detections."""

    layers: VerifyReport
    detections: tuple[DetectionReport, ...]


def verify_detector(
    detector: SSD | FasterRCNN,
    model: DetectorModel,
    images: Tensor,
    *,
    engines: tuple[Kernels, ...],
    tolerances: Tolerances | None = None,
    threads: int | None = None,
) -> DetectorReport:
    """Compare ``model`` with ``detector`` on ``images`` (N, C, H, W) on every one of ``engines``.

    Raises:
        ExportMismatch: naming the first layer or step that differs beyond rounding.
        DirnetError: the model cannot be loaded.
    """
    raw = model.raw
    ends = Ends(raw.input_names, raw.output_names)
    layers = verify_export(
        raw, model.proto, images, engines=engines, tolerances=tolerances, threads=threads, ends=ends
    )
    reference = copy.deepcopy(detector).cpu().eval()
    with held_weights(reference):
        own = [_own_detections(reference, image) for image in images.cpu().float()]
    reports = tuple(
        _check_engine(reference, model, ends, images, own, kernels, threads) for kernels in engines
    )
    return DetectorReport(layers, reports)


def _own_detections(detector: SSD | FasterRCNN, image: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return detector([image])[0]


def _check_engine(
    detector: SSD | FasterRCNN,
    model: DetectorModel,
    ends: Ends,
    images: Tensor,
    own: list[dict[str, Tensor]],
    kernels: Kernels,
    threads: int | None,
) -> DetectionReport:
    inside = (*ends.outputs, *exposed_names(detector, model.geometry))
    session = open_probe(model.proto, [], kernels, threads, inside)
    where = f"with {ENGINE_NAMES[kernels]}"
    steps, found, shared, most = StepErrors(), 0, 0, 0
    for image, expected in zip(images.cpu().float().split(1), own, strict=True):
        values = run_probe(session, image)
        steps = steps.worst(check_steps(detector, model.geometry, values, where))
        got = {name: torch.from_numpy(values[name]) for name in ("boxes", "labels", "scores")}
        found += len(got["scores"])
        most += max(len(got["scores"]), len(expected["scores"]))
        shared += shared_detections(got, expected)
    return DetectionReport(kernels, found, steps, shared / most if most else None)


def shared_detections(some: dict[str, Tensor], others: dict[str, Tensor]) -> int:
    """Return how many detections of one image two engines share, each counted once."""
    same = box_iou(some["boxes"], others["boxes"]) >= _SAME_OVERLAP
    same &= some["labels"][:, None] == others["labels"]
    same &= (some["scores"][:, None] - others["scores"]).abs() <= _SAME_SCORE
    free = torch.ones(len(others["scores"]), dtype=torch.bool)
    shared = 0
    for row in same:
        fitting = (row & free).nonzero().flatten()
        if len(fitting):
            free[fitting[0]] = False
            shared += 1
    return shared
