"""Checks an exported model against PyTorch, layer by layer, with the kernels and with stock ONNX Runtime."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
from torch import Tensor, nn

from dirnet_convert.binarize.held_weights import held_weights
from dirnet_convert.binarize.layers import BinaryLayer
from dirnet_convert.onnx_export.engine_check import EngineCheck
from dirnet_convert.onnx_export.operators import unpack_bits
from dirnet_convert.onnx_export.probe import BinaryNode, Ends, binary_nodes, ends_of, image_batches
from dirnet_convert.onnx_export.verify_report import ExportMismatch, LayerReport, Tolerances, VerifyReport
from dirnet_convert.runtime.session import Kernels


def verify_export(
    student: nn.Module,
    model: Path | onnx.ModelProto,
    images: Tensor,
    *,
    engines: tuple[Kernels, ...] = (Kernels.STOCK, Kernels.DIRNET),
    tolerances: Tolerances | None = None,
    batch_size: int = 8,
    threads: int | None = None,
    ends: Ends | None = None,
) -> VerifyReport:
    """Compare ``model`` with ``student`` on ``images`` (N, C, H, W) on every one of ``engines``.

    ``ends`` says where in the model the student begins and ends; None: at its border.

    Raises:
        ExportMismatch: naming the first layer, in the graph's order, that differs beyond ``tolerances``.
        DirnetError: the model cannot be loaded.
    """
    limits = tolerances or Tolerances()
    proto = model if isinstance(model, onnx.ModelProto) else onnx.load(model)
    reference = copy.deepcopy(student).cpu().eval()
    nodes = binary_nodes(proto)
    with held_weights(reference):
        _check_constants(reference, nodes)
        checks = [
            EngineCheck(reference, proto, nodes, kernels, limits, threads, ends or ends_of(proto))
            for kernels in engines
        ]
        for batch in image_batches(proto, images, batch_size):
            for check in checks:
                check.add(batch)
    return VerifyReport(
        images=len(images),
        layers=tuple(_merge_layers([check.layer_report(node) for check in checks]) for node in nodes),
        engines=tuple(check.report() for check in checks),
        tolerances=limits,
    )


def _check_constants(student: nn.Module, nodes: list[BinaryNode]) -> None:
    """Compare what is stored of each layer with PyTorch's, bit by bit."""
    layers = {path: module for path, module in student.named_modules() if isinstance(module, BinaryLayer)}
    missing = sorted(set(layers) - {node.module for node in nodes})
    for node in nodes:
        if node.module not in layers:
            raise ExportMismatch(node.name, "PyTorch's network has no binary layer of this name")
        layer = layers[node.module]
        own = layer.binary_weight()
        own = own.permute(0, 2, 3, 1) if node.is_convolution else own
        stored = unpack_bits(node.constants["W"], own.shape[-1])
        wrong = int((own.numpy() != stored).sum()) if own.shape == stored.shape else own.numel()
        if wrong:
            raise ExportMismatch(node.name, f"{wrong} of {own.numel()} packed weights are others")
        threshold = layer.threshold.detach().numpy()
        if not np.array_equal(threshold, node.threshold, equal_nan=True):
            worst = np.abs(threshold - node.threshold).max()
            raise ExportMismatch(node.name, f"the thresholds of its inputs differ by up to {worst:.3g}")
    # A layer that forward() never calls has no node, and none is needed; one that is called must have one.
    if missing and not nodes:
        raise ExportMismatch(missing[0], "the model has no binary layer")


def _merge_layers(reports: list[LayerReport]) -> LayerReport:
    """Return the worst of one layer over the engines."""
    errors = [report.error for report in reports if report.error is not None]
    return LayerReport(
        name=reports[0].name,
        operator=reports[0].operator,
        flipped_share=max(report.flipped_share for report in reports),
        free_flipped_share=max(report.free_flipped_share for report in reports),
        error=max(errors) if errors else None,
    )
