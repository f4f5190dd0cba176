"""A source of photographs with boxes, for detectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dirnet_convert.data.augment import Augmentation
from dirnet_convert.data.boxes import BoxSplit, Target, prepared
from dirnet_convert.data.file_source import BrokenImage, BrokenImageError, load_image
from dirnet_convert.data.source import DataInfo, ImageSource, Limits, Split, mixed_seed
from dirnet_convert.environment import usable_cores
from dirnet_convert.errors import UsageError
from dirnet_convert.recipe import AugmentKind

DetectionBatch = tuple[Tensor, list[Target]]


class DetectionSource(ImageSource):
    """An ImageSource whose labels are a list of targets, one per image; see ``boxes.Target``."""

    def __init__(self, info: DataInfo, limits: Limits, train: BoxSplit, test: BoxSplit, workers: int) -> None:
        super().__init__(info, limits)
        self._splits = {Split.TRAIN: train, Split.TEST: test}
        self._workers = min(workers, usable_cores())

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the annotations."""
        count = sum(split.degenerate for split in self._splits.values())
        boxes = "1 box without area was" if count == 1 else f"{count} boxes without area were"
        return (f"{boxes} left out of data '{self.info.name}'.",) if count else ()

    def steps_per_epoch(self, batch_size: int, limit: int = 0) -> int:
        """Return the number of whole training batches; raises UsageError where there is not one."""
        if not self._splits[Split.TRAIN].paths:
            raise UsageError(
                f"Data '{self.info.name}' has only validation images here, to evaluate and calibrate with; "
                "training needs annotated training images."
            )
        return super().steps_per_epoch(batch_size, limit)

    def _labels(self, split: Split) -> Tensor:
        """Return each image's rarest class (-1 for none), by which calibration images are spread."""
        objects = self._splits[split].objects
        frequency = Counter(item.label for found in objects for item in found)
        rarest = [min((i.label for i in found), key=lambda k: frequency[k], default=-1) for found in objects]
        return torch.tensor(rarest, dtype=torch.int64)

    def _raw_batches(
        self,
        split: Split,
        batches: Sequence[Sequence[int]],
        augment: Augmentation | None,
        seed: int,
        first: int,
    ) -> Iterator[DetectionBatch]:
        size, kind = self.info.image_size, None if augment is None else augment.kind
        loader = DataLoader(
            _BatchDecoder(self._splits[split], batches, size, kind, seed),
            batch_size=None,
            shuffle=False,
            num_workers=self._workers,
            # From pinned memory an accelerator takes a batch while it computes.
            pin_memory=self.device.type == "cuda",
            # Without its own generator a loader draws from torch's, which a resumed run must find untouched.
            generator=torch.Generator().manual_seed(seed),
        )
        for item in loader:
            if isinstance(item, BrokenImage):
                raise BrokenImageError(item)
            yield item


class _BatchDecoder(Dataset):
    """Decodes the k-th batch whole; each image's randomness depends on the seed and its position alone."""

    def __init__(
        self,
        split: BoxSplit,
        batches: Sequence[Sequence[int]],
        size: int,
        augment: AugmentKind | None,
        seed: int,
    ) -> None:
        self._split = split
        self._batches = batches
        self._size = size
        self._augment = augment
        self._seed = seed

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> DetectionBatch | BrokenImage:
        images, targets = [], []
        with torch.random.fork_rng(devices=[]):
            for position in self._batches[number]:
                torch.manual_seed(mixed_seed(self._seed, position))
                try:
                    image = load_image(self._split.paths[position])
                except BrokenImageError as error:
                    return error.broken
                pixels, target = prepared(image, self._split.objects[position], self._size, self._augment)
                images.append(pixels)
                targets.append(target)
        return torch.stack(images), targets
