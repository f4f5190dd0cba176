"""Small data sets that lie in memory, a processor's or an accelerator's; augmented a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from dirnet_convert.data.augment import Augmentation, augment_batch, resize_batch
from dirnet_convert.data.source import Batch, DataInfo, ImageSource, Limits, Split, mixed_seed


@dataclass(frozen=True)
class TensorSplit:
    """One split: images uint8 (N, C, H, W), labels int64 (N,)."""

    images: Tensor
    labels: Tensor


class TensorSource(ImageSource):
    """An ImageSource over tensors; ``mirror`` False where a mirrored image is another thing (digits)."""

    def __init__(
        self, info: DataInfo, limits: Limits, train: TensorSplit, test: TensorSplit, mirror: bool = True
    ) -> None:
        super().__init__(info, limits)
        self._splits = {Split.TRAIN: train, Split.TEST: test}
        self._mirror = mirror

    def on(self, device: torch.device) -> Self:
        moved = super().on(device)
        moved._splits = {
            split: replace(data, images=data.images.to(device)) for split, data in self._splits.items()
        }
        return moved

    def _labels(self, split: Split) -> Tensor:
        return self._splits[split].labels

    def _raw_batches(
        self,
        split: Split,
        batches: Sequence[Sequence[int]],
        augment: Augmentation | None,
        seed: int,
        first: int,
    ) -> Iterator[Batch]:
        data = self._splits[split]
        size = self.info.image_size if augment is None else augment.image_size
        for number, positions in enumerate(batches, first):
            chosen = torch.tensor(positions, dtype=torch.int64)
            images = data.images[chosen.to(self.device)]
            if augment is not None:
                generator = torch.Generator().manual_seed(mixed_seed(seed, number))
                images = augment_batch(images, augment, generator, self._mirror)
            yield resize_batch(images, size), data.labels[chosen]
