"""Accuracy of a network over the test images of a data set, in PyTorch or in ONNX Runtime."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from dirnet_convert.binarize.held_weights import held_weights
from dirnet_convert.data.source import DataInfo, ImageSource
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.modes import evaluating

if TYPE_CHECKING:
    import onnxruntime

# Images (N, C, H, W) float32 in, logits (N, classes) float32 out.
Predictor = Callable[[Tensor], Tensor]
TOP = 5


@dataclass(frozen=True)
class Accuracy:
    """Shares of correct answers over ``images`` images; top-5 only where there are more than five classes."""

    images: int
    top1_percent: float
    top5_percent: float | None
    images_per_second: float


def evaluate(
    predict: Predictor,
    source: ImageSource,
    batch_size: int = 64,
    limit: int = 0,
    on_images: Callable[[int], None] | None = None,
) -> Accuracy:
    """Return the accuracy of ``predict`` over the test images (``limit`` of them, evenly spread, if not 0).

    ``on_images`` is told the number of images of each finished batch.

    Raises:
        UsageError: there are no test images, or the network has another number of classes than the data.
    """
    correct = {1: 0, TOP: 0}
    images = 0
    began = time.perf_counter()
    for batch, labels in source.test_batches(batch_size, limit):
        logits = predict(batch).to("cpu", torch.float32)
        if logits.ndim != 2 or logits.shape[1] != source.info.classes:
            raise UsageError(
                f"The network's output is {tuple(logits.shape)}, but data '{source.info.name}' has "
                f"{source.info.classes} classes; evaluate it on the data that it was trained for."
            )
        ranked = logits.topk(min(TOP, logits.shape[1])).indices == labels[:, None]
        correct[1] += int(ranked[:, 0].sum())
        correct[TOP] += int(ranked.sum())
        images += len(labels)
        if on_images is not None:
            on_images(len(labels))
    if images == 0:
        raise UsageError(f"Data '{source.info.name}' has no test images.")
    seconds = time.perf_counter() - began
    return Accuracy(
        images=images,
        top1_percent=100 * correct[1] / images,
        top5_percent=100 * correct[TOP] / images if source.info.classes > TOP else None,
        images_per_second=images / seconds,
    )


@contextlib.contextmanager
def module_predictor(module: nn.Module, device: str = "cpu") -> Iterator[Predictor]:
    """Yield a predictor of ``module`` in evaluation mode; each sub-module's mode is put back afterwards.

    Its weights must not change meanwhile.
    """
    module.to(device)

    def predict(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return module(images.to(device))

    with evaluating(module), held_weights(module):
        yield predict


def session_predictor(session: onnxruntime.InferenceSession, info: DataInfo) -> Predictor:
    """Return a predictor of an ONNX Runtime session; a model of a fixed batch is fed in parts of that size.

    Raises:
        UsageError: the model does not take one float image tensor of ``info``'s channels and size.
    """
    entry = session.get_inputs()[0]
    wanted = (info.channels, info.image_size, info.image_size)
    fits = len(entry.shape) == 4 and all(
        not isinstance(size, int) or size == own for size, own in zip(entry.shape[1:], wanted, strict=True)
    )
    if len(session.get_inputs()) != 1 or entry.type != "tensor(float)" or not fits:
        raise UsageError(
            f"The model takes {entry.name} {tuple(entry.shape)}, but data '{info.name}' gives images of "
            f"{wanted}; --image-size changes their size."
        )
    fixed = entry.shape[0] if isinstance(entry.shape[0], int) else 0

    def run(images: np.ndarray) -> np.ndarray:
        return session.run(None, {entry.name: images})[0]

    def predict(images: Tensor) -> Tensor:
        pixels = np.ascontiguousarray(images.numpy())
        if not fixed:
            return torch.from_numpy(run(pixels))
        missing = -len(pixels) % fixed
        padded = np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.float32)])
        parts = [run(padded[k : k + fixed]) for k in range(0, len(padded), fixed)]
        return torch.from_numpy(np.concatenate(parts)[: len(pixels)])

    return predict


def top_classes(logits: Tensor, names: tuple[str, ...], count: int = TOP) -> list[tuple[str, float]]:
    """Return the ``count`` likeliest classes of one image's logits (classes,) with their probabilities.

    Raises:
        DirnetError: the logits are not finite numbers.
    """
    if not torch.isfinite(logits).all():
        raise DirnetError(
            "The network's output is not finite; its weights or the image's normalization are broken."
        )
    probabilities = logits.to(torch.float32).softmax(0)
    best = probabilities.topk(min(count, len(probabilities)))
    return [
        (names[index] if index < len(names) else f"class {index}", value)
        for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
