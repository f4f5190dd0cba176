"""scikit-learn's handwritten digits (1797 images, no download), as small RGB images."""

from __future__ import annotations

import torch
from torch import Tensor

from dirnet_convert.data.source import DataInfo, ImageSource
from dirnet_convert.data.tensor_source import TensorSource, TensorSplit
from dirnet_convert.data.where import Request
from dirnet_convert.errors import DirnetError

IMAGE_SIZE = 32
TEST_EVERY = 5


def open_digits(request: Request) -> ImageSource:
    """Open the digits as (3, 32, 32), as CIFAR's networks take them; every fifth image of a class tests.

    Raises:
        DirnetError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DirnetError(
            "The digits need scikit-learn; install it with 'pip install scikit-learn'."
        ) from None
    bunch = load_digits()
    grey = torch.from_numpy(bunch.images).to(torch.float32)  # (1797, 8, 8), 0..16
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    images = _enlarged(grey)
    test = _every_nth_of_class(labels, TEST_EVERY)
    level, spread = images[~test].float().div(255).mean().item(), images[~test].float().div(255).std().item()
    names = tuple(str(name) for name in bunch.target_names)
    info = DataInfo(
        request.name, len(names), names, 3, IMAGE_SIZE, (round(level, 4),) * 3, (round(spread, 4),) * 3
    )
    return TensorSource(
        request.wanted.applied(info),
        request.limits,
        TensorSplit(images[~test], labels[~test]),
        TensorSplit(images[test], labels[test]),
        mirror=False,
    )


def _enlarged(grey: Tensor) -> Tensor:
    scaled = torch.nn.functional.interpolate(
        grey[:, None] * (255 / 16), size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False
    )
    return scaled.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def _every_nth_of_class(labels: Tensor, n: int) -> Tensor:
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        chosen[(labels == label).nonzero()[n - 1 :: n, 0]] = True
    return chosen
