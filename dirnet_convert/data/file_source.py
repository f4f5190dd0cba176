"""Data sets of image files, decoded as they are needed, in the same process or in workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from dirnet_convert.data.augment import Augmentation, test_transform, train_transform
from dirnet_convert.data.source import Batch, DataInfo, ImageSource, Limits, Split, mixed_seed
from dirnet_convert.environment import usable_cores
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.files import DAMAGE

# Pillow reports broken content as any of these, according to the format.
_DAMAGE = (*DAMAGE, OSError, SyntaxError, Image.DecompressionBombError)
# What puts an image upright, by the orientation in its EXIF data.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class FileSplit:
    """One split: image files and their classes, in step."""

    paths: tuple[Path, ...] = ()
    labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class BrokenImage:
    """An image file that could not be read, and why; travels from a worker as a value, not as a traceback."""

    path: Path
    reason: str

    def error(self) -> DirnetError:
        return DirnetError(f"{self.path} cannot be read as an image ({self.reason}); repair or remove it.")


class BrokenImageError(DirnetError):
    """Raised by load_image; carries the file and the reason."""

    def __init__(self, broken: BrokenImage) -> None:
        super().__init__(str(broken.error()))
        self.broken = broken


def load_image(path: Path) -> Image.Image:
    """Decode an image file to RGB, turned upright as its EXIF data say; damaged ones say nothing.

    Raises:
        BrokenImageError: the file is missing, no image, cut short, or has values of 32 bits.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return _of_eight_bits(_upright(image)).convert("RGB")
    except FileNotFoundError:
        raise BrokenImageError(BrokenImage(path, "no such file")) from None
    except Image.UnidentifiedImageError:
        raise BrokenImageError(BrokenImage(path, "not an image, or of an unknown format")) from None
    except _DAMAGE as error:
        raise BrokenImageError(BrokenImage(path, str(error))) from None


def _upright(image: Image.Image) -> Image.Image:
    # Pillow's exif_transpose writes all the EXIF data anew, and fails at any damaged piece of them.
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except _DAMAGE:
        return image
    return image if turn is None else image.transpose(turn)


def _of_eight_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion cuts larger values off at 255, which leaves white.
    if image.mode.startswith("I;16"):
        pixels = np.rint(np.asarray(image) / 257.0)
        return Image.fromarray(pixels.astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of Pillow's mode {image.mode} are not taken, only those of 8 and 16 bits")
    return image


class FileSource(ImageSource):
    """An ImageSource over image files; up to ``workers`` processes decode ahead, 0 decodes in this one."""

    def __init__(
        self, info: DataInfo, limits: Limits, train: FileSplit, test: FileSplit, workers: int
    ) -> None:
        super().__init__(info, limits)
        self._splits = {Split.TRAIN: train, Split.TEST: test}
        self._label_tensors = {
            split: torch.tensor(data.labels, dtype=torch.int64) for split, data in self._splits.items()
        }
        # More processes than processors only wait for each other.
        self._workers = min(workers, usable_cores())

    def steps_per_epoch(self, batch_size: int, limit: int = 0) -> int:
        """Return the number of whole training batches; raises UsageError where there is not one."""
        if not self._splits[Split.TRAIN].paths:
            raise UsageError(
                f"Data '{self.info.name}' has only validation images here, to evaluate and calibrate with; "
                "training needs a folder train/ beside val/."
            )
        return super().steps_per_epoch(batch_size, limit)

    def _labels(self, split: Split) -> Tensor:
        return self._label_tensors[split]

    def _raw_batches(
        self,
        split: Split,
        batches: Sequence[Sequence[int]],
        augment: Augmentation | None,
        seed: int,
        first: int,
    ) -> Iterator[Batch]:
        transform = (
            test_transform(self.info.image_size, self.info.test_resize)
            if augment is None
            else train_transform(augment)
        )
        loader = DataLoader(
            _BatchDecoder(self._splits[split], batches, transform, seed),
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
        self, split: FileSplit, batches: Sequence[Sequence[int]], transform: v2.Transform, seed: int
    ) -> None:
        self._split = split
        self._batches = batches
        self._transform = transform
        self._seed = seed

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Batch | BrokenImage:
        positions = self._batches[number]
        images = []
        with torch.random.fork_rng(devices=[]):
            for position in positions:
                torch.manual_seed(mixed_seed(self._seed, position))
                try:
                    images.append(self._transform(load_image(self._split.paths[position])))
                except BrokenImageError as error:
                    return error.broken
        labels = torch.tensor([self._split.labels[position] for position in positions], dtype=torch.int64)
        return torch.stack(images), labels


def prepare_image(path: Path, info: DataInfo) -> Tensor:
    """Return one image file as a network takes it: test transform, normalized, float32 (1, C, H, W).

    Raises:
        BrokenImageError: the file cannot be read as an image.
    """
    image = load_image(path)
    if info.channels == 1:
        image = image.convert("L")
    pixels = test_transform(info.image_size, info.test_resize)(image)[None].to(torch.float32).div_(255.0)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (info.mean, info.std))
    return pixels.sub_(mean).div_(std)
