"""What every source of images offers: normalized batches, the same for the same seed and epoch."""

from __future__ import annotations

import abc
import copy
import enum
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dirnet_convert.data.augment import Augmentation
from dirnet_convert.errors import UsageError
from dirnet_convert.recipe import Task

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Batch = tuple[Tensor, Tensor]


class Split(enum.StrEnum):
    """Which part of a data set."""

    TRAIN = "train"
    TEST = "test"


@dataclass(frozen=True)
class DataInfo:
    """What a network must know of its images: classes, channels, edge in pixels, mean and std per channel.

    Before the central crop of a test image its shortest side becomes ``image_size * test_resize``.
    """

    name: str
    classes: int
    class_names: tuple[str, ...]
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    test_resize: float = 1.0
    task: Task = Task.CLASSIFICATION


@dataclass(frozen=True)
class Limits:
    """How many images of each split are used, spread evenly over the split; 0 means all."""

    train: int = 0
    test: int = 0


@dataclass(frozen=True)
class Shard:
    """One of ``count`` equal parts, from 0: of each training batch, or of the test images."""

    index: int = 0
    count: int = 1


WHOLE = Shard()


def mixed_seed(*parts: int) -> int:
    """Return a 63-bit seed that differs wherever one of ``parts`` (any integers) differs."""
    return int(np.random.SeedSequence([part % 2**64 for part in parts]).generate_state(1, np.uint64)[0]) >> 1


def spread(size: int, limit: int) -> list[int]:
    """Return ``limit`` of the positions 0..size-1, evenly spaced (all where ``limit`` is 0 or too large).

    Files lie class by class, so that the first few alone would be of one class.
    """
    if limit <= 0 or limit >= size:
        return list(range(size))
    return [position * size // limit for position in range(limit)]


@dataclass(frozen=True)
class _Ranked:
    """An image's position, and which it is (from 0) of how many of its class, in some order."""

    position: int
    rank: int
    class_size: int


class ImageSource(abc.ABC):
    """Images of one data set, with their classes; a subclass says where the raw bytes come from."""

    def __init__(self, info: DataInfo, limits: Limits) -> None:
        if len(info.mean) != info.channels or len(info.std) != info.channels or min(info.std) <= 0:
            raise UsageError(
                f"Data '{info.name}' has {info.channels} channels: mean and std need that many numbers each, "
                f"with std above 0, not mean {list(info.mean)} and std {list(info.std)}."
            )
        self.info = info
        self._limits = limits
        self._tested = Split.TEST
        self._mean = torch.tensor(info.mean).view(1, -1, 1, 1)
        self._std = torch.tensor(info.std).view(1, -1, 1, 1)

    @abc.abstractmethod
    def _labels(self, split: Split) -> Tensor:
        """Return the int64 class of every image of ``split``, before limits."""

    @abc.abstractmethod
    def _raw_batches(
        self,
        split: Split,
        batches: Sequence[Sequence[int]],
        augment: Augmentation | None,
        seed: int,
        first: int,
    ) -> Iterator[Batch]:
        """Yield (uint8 (N, C, S, S), int64 (N,)) per list of positions, of the size that ``augment`` names;
        None is the test transform, to that of ``info``.

        Randomness must depend only on ``seed``, the batch's number (counted from ``first``) and the position.
        """

    def on(self, device: torch.device) -> Self:
        """Return the same source with its batches' images on ``device``; labels stay.

        What lies in memory moves there once. Other pixels travel as bytes and are normalized where they
        arrive. Random choices do not depend on the device.
        """
        moved = copy.copy(self)
        moved._mean, moved._std = self._mean.to(device), self._std.to(device)
        return moved

    @property
    def device(self) -> torch.device:
        """Where the images of its batches are."""
        return self._mean.device

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that a person should read before these images are used."""
        return ()

    @property
    def train_size(self) -> int:
        """Number of training images in use."""
        return len(self._positions(Split.TRAIN, 0))

    @property
    def test_size(self) -> int:
        """Number of test images in use."""
        return len(self._positions(Split.TEST, 0))

    def test_share(self, shard: Shard) -> ImageSource:
        """Return a source with every ``shard.count``-th test image only; all where there are not so many."""
        if self.test_size < shard.count:
            return self
        part = copy.copy(self)
        used = self._used[Split.TEST][shard.index :: shard.count]
        part._used = {**self._used, Split.TEST: used}
        return part

    def hold_out(self, share: float, seed: int) -> tuple[ImageSource, ImageSource]:
        """Part the training images: a source without ``share`` of them, and one whose test images they are.

        The share is taken of each class, rare ones included, and is the same for the same ``seed``.

        Raises:
            UsageError: one of the parts would be empty.
        """
        ranked = self._ranked(Split.TRAIN, seed)
        # An image of rank k among n of its class stands at (k + 1/2) / n: those in front of any share are
        # about that share of every class.
        ranked.sort(key=lambda image: (image.rank + 0.5) / image.class_size)
        held = {image.position for image in ranked[: round(share * self.train_size)]}
        kept = [position for position in self._used[Split.TRAIN] if position not in held]
        if not held or not kept:
            raise UsageError(
                f"Of the {self.train_size} training images of data '{self.info.name}', a share of {share:g} "
                f"leaves {len(kept)} to train with and {len(held)} to hold out; choose another share."
            )
        rest, chosen = copy.copy(self), copy.copy(self)
        rest._used = {**self._used, Split.TRAIN: kept}
        chosen._used = {**self._used, Split.TEST: sorted(held)}
        chosen._tested = Split.TRAIN
        return rest, chosen

    def steps_per_epoch(self, batch_size: int, limit: int = 0) -> int:
        """Return the number of whole training batches; raises UsageError where there is not one."""
        images = len(self._positions(Split.TRAIN, limit))
        if images < batch_size or images == 0:
            raise UsageError(
                f"Data '{self.info.name}' has {images} training images, fewer than a batch of {batch_size}; "
                "choose a smaller batch size or add images."
            )
        return images // batch_size

    def train_batches(
        self,
        batch_size: int,
        augment: Augmentation,
        seed: int,
        epoch: int,
        start_batch: int = 0,
        limit: int = 0,
        shard: Shard = WHOLE,
    ) -> Iterator[Batch]:
        """Yield shuffled, augmented (float32 (N, C, H, W), int64 (N,)) in whole batches.

        The batches depend on ``seed``, ``epoch`` and the batch's number alone: a run resumed at
        ``start_batch`` sees what a run that never stopped sees, and nothing before it is decoded. The
        batches of a shard's parts are together those of the whole with a batch ``count`` times as large.

        Raises:
            UsageError: there are fewer images than one batch holds.
        """
        whole = batch_size * shard.count
        steps = self.steps_per_epoch(whole, limit)
        positions = self._positions(Split.TRAIN, limit)
        epoch_seed = mixed_seed(seed, epoch)
        order = torch.randperm(len(positions), generator=torch.Generator().manual_seed(epoch_seed)).tolist()
        shuffled = [positions[k] for k in order]
        begins = [k * whole + shard.index * batch_size for k in range(start_batch, steps)]
        batches = [shuffled[begin : begin + batch_size] for begin in begins]
        part_seed = mixed_seed(epoch_seed, shard.index) if shard.index else epoch_seed
        sized = replace(augment, image_size=augment.image_size or self.info.image_size)
        for images, labels in self._raw_batches(Split.TRAIN, batches, sized, part_seed, start_batch):
            yield self._normalize(images), labels

    def test_batches(self, batch_size: int, limit: int = 0) -> Iterator[Batch]:
        """Yield every test image once, in order, as (float32 (N, C, H, W), int64 (N,))."""
        positions = self._positions(Split.TEST, limit)
        yield from self._plain_batches(self._tested, positions, batch_size)

    def calibration_images(self, count: int, seed: int) -> Tensor:
        """Return up to ``count`` un-augmented training images (N, C, H, W), spread over the classes.

        A data set that has only validation images lends those.
        """
        split = Split.TRAIN if self.train_size else Split.TEST
        chosen = self._by_class(split, seed)[:count]
        return torch.cat([images for images, _ in self._plain_batches(split, chosen, 64)])

    def plain_train_batches(
        self, count: int, batch_size: int, seed: int, shard: Shard = WHOLE
    ) -> Iterator[Tensor]:
        """Yield up to ``count`` un-augmented training images, drawn at random, as (N, C, H, W); of these only
        the part of ``shard``."""
        positions = self._positions(Split.TRAIN, 0)
        order = torch.randperm(len(positions), generator=torch.Generator().manual_seed(mixed_seed(seed)))
        chosen = [positions[k] for k in order[:count].tolist()]
        begin, end = (k * len(chosen) // shard.count for k in (shard.index, shard.index + 1))
        for images, _ in self._plain_batches(Split.TRAIN, chosen[begin:end], batch_size):
            yield images

    def _by_class(self, split: Split, seed: int) -> list[int]:
        """Return the positions of ``split`` in random order, one of each class in turn."""
        return [image.position for image in sorted(self._ranked(split, seed), key=lambda image: image.rank)]

    def _ranked(self, split: Split, seed: int) -> list[_Ranked]:
        """Return the images of ``split`` in random order."""
        positions = self._positions(split, 0)
        labels = self._labels(split)[positions].tolist()
        sizes = Counter(labels)
        order = torch.randperm(
            len(positions), generator=torch.Generator().manual_seed(mixed_seed(seed))
        ).tolist()
        seen: Counter[int] = Counter()
        ranked = []
        for k in order:
            ranked.append(_Ranked(positions[k], seen[labels[k]], sizes[labels[k]]))
            seen[labels[k]] += 1
        return ranked

    def _plain_batches(self, split: Split, positions: Sequence[int], batch_size: int) -> Iterator[Batch]:
        batches = [positions[k : k + batch_size] for k in range(0, len(positions), batch_size)]
        for images, labels in self._raw_batches(split, batches, None, 0, 0):
            yield self._normalize(images), labels

    def _positions(self, split: Split, limit: int) -> list[int]:
        used = self._used[split]
        return [used[k] for k in spread(len(used), limit)] if limit else used

    @functools.cached_property
    def _used(self) -> dict[Split, list[int]]:
        limits = {Split.TRAIN: self._limits.train, Split.TEST: self._limits.test}
        return {split: spread(len(self._labels(split)), limit) for split, limit in limits.items()}

    def _normalize(self, images: Tensor) -> Tensor:
        pixels = images.to(self.device, non_blocking=True)
        return pixels.to(torch.float32).div_(255.0).sub_(self._mean).div_(self._std)


@dataclass(frozen=True)
class Wanted:
    """What a caller asks of a data set's images; an empty field leaves the data set's own value.

    ``class_names`` are those that a network knows: images that show some of them are numbered by these.
    """

    image_size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    class_names: tuple[str, ...] = ()

    def applied(self, info: DataInfo) -> DataInfo:
        """Return ``info`` with the fields that were asked for."""
        return replace(
            info,
            image_size=self.image_size or info.image_size,
            mean=self.mean or info.mean,
            std=self.std or info.std,
        )
