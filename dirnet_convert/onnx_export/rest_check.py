"""What INT8 layers cost: accuracy before and after, and whether both engines still give the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from torch import Tensor

from dirnet_convert.data.source import ImageSource
from dirnet_convert.errors import DirnetError
from dirnet_convert.evaluate import Accuracy, evaluate, session_predictor
from dirnet_convert.onnx_export.engine_check import relative_error
from dirnet_convert.onnx_export.operators import unpack_bits
from dirnet_convert.onnx_export.probe import BinaryNode, binary_nodes, image_batches, open_probe, run_probe
from dirnet_convert.onnx_export.verify_report import ENGINE_NAMES, Tolerances
from dirnet_convert.runtime.session import Kernels, load_session

if TYPE_CHECKING:
    import onnxruntime


@dataclass(frozen=True)
class EngineAgreement:
    """Two engines on one model: bits that differ of all that were read, and the worst logit.

    ``error`` is |difference| over the logits' root mean square, None where bits differed in every batch.
    """

    images: int
    flipped_share: float
    error: float | None


@dataclass(frozen=True)
class RestReport:
    """A model with INT8 layers against the same model with float ones.

    ``logit_difference`` is the root mean square of the difference over that of the float logits;
    ``agreement`` is None where there is one engine only.
    """

    layers: tuple[str, ...]
    calibration_images: int
    before: Accuracy
    after: Accuracy
    logit_difference: float
    top1_agreement: float
    agreement: EngineAgreement | None


def check_engines(
    model: onnx.ModelProto, images: Tensor, limits: Tolerances, threads: int | None = None
) -> EngineAgreement:
    """Compare the kernels with stock ONNX Runtime on ``images`` (N, C, H, W).

    Raises:
        DirnetError: they differ by more than rounding.
    """
    nodes = binary_nodes(model)
    logits = model.graph.output[0].name
    sessions = [open_probe(model, nodes, kernels, threads, (logits,)) for kernels in Kernels]
    bits = flipped = 0
    error: float | None = None
    for batch in image_batches(model, images, batch_size=8):
        first, second = (run_probe(session, batch) for session in sessions)
        counts = [_differing(node, first, second) for node in nodes]
        bits += sum(total for _, total in counts)
        flipped += sum(count for count, _ in counts)
        changed = next(((n, c) for n, c in zip(nodes, counts, strict=True) if c[0]), None)
        if changed is not None:
            # Behind the first bit that rounding turned, the two are different networks.
            node, (count, total) = changed
            if count > limits.flipped_share * total:
                raise _disagreement(f"{count} of {total} bits that {node.name} reads differ")
            continue
        worst = relative_error(torch.from_numpy(first[logits]), torch.from_numpy(second[logits]))
        error = max(error or 0.0, worst)
        if not worst <= limits.rounding:
            raise _disagreement(f"the output differs by {worst:.3g} of its root mean square")
    return EngineAgreement(len(images), flipped / max(1, bits), error)


def check_rest(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    layers: tuple[str, ...],
    source: ImageSource,
    *,
    calibration_images: int,
    limit: int,
    images: Tensor,
    engines: tuple[Kernels, ...],
    tolerances: Tolerances,
    threads: int | None = None,
) -> RestReport:
    """Measure both models on ``limit`` test images of ``source``, and compare the engines on ``images``.

    Raises:
        DirnetError: the engines differ by more than rounding, or there are no test images.
    """
    agreement = check_engines(after, images, tolerances, threads) if len(engines) > 1 else None
    kernels = Kernels.DIRNET if Kernels.DIRNET in engines else Kernels.STOCK
    (first, plain), (second, quantized) = (
        _answers(load_session(model.SerializeToString(), kernels=kernels, threads=threads), source, limit)
        for model in (before, after)
    )
    return RestReport(
        layers=layers,
        calibration_images=calibration_images,
        before=first,
        after=second,
        logit_difference=float((quantized - plain).square().mean().sqrt() / plain.square().mean().sqrt()),
        top1_agreement=float((quantized.argmax(1) == plain.argmax(1)).float().mean()),
        agreement=agreement,
    )


def _answers(
    session: onnxruntime.InferenceSession, source: ImageSource, limit: int
) -> tuple[Accuracy, Tensor]:
    """Return the accuracy on the test images of ``source``, and the logits (N, classes) themselves."""
    predict = session_predictor(session, source.info)
    logits: list[Tensor] = []

    def keep(batch: Tensor) -> Tensor:
        logits.append(predict(batch))
        return logits[-1]

    return evaluate(keep, source, limit=limit), torch.cat(logits)


def _differing(
    node: BinaryNode, first: dict[str, np.ndarray], second: dict[str, np.ndarray]
) -> tuple[int, int]:
    """Return how many of the bits that ``node`` reads differ, and of how many."""
    name = node.inputs["B"]
    ours, theirs = (unpack_bits(values[name], node.attributes["channels"]) for values in (first, second))
    return int((ours != theirs).sum()), ours.size


def _disagreement(reason: str) -> DirnetError:
    names = " and ".join(ENGINE_NAMES[kernels] for kernels in Kernels)
    return DirnetError(f"With INT8 layers, {names} disagree: {reason}. Nothing was written.")
