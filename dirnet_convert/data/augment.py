"""What is done to uint8 images before they are normalized: the test transform and the augmentations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from dirnet_convert.recipe import AugmentKind, TrainOptions

# The usual share of a photograph that the test crop keeps: shortest side to size*256/224, then the centre.
PHOTOGRAPH_RESIZE = 256 / 224
# CIFAR's customary 4 pixels of zero padding at 32 pixels, in proportion at other sizes.
CROP_PADDING = 4 / 32


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images: of which kind, their edge in pixels (0 is that of the data), and the
    least share of an image's area that RANDOM_RESIZED_CROP keeps."""

    kind: AugmentKind
    image_size: int = 0
    crop_area_min: float = TrainOptions.crop_area_min


def crop_padding(size: int) -> int:
    """Return the pixels of zero padding around an image of edge ``size`` that is then cropped at random."""
    return max(1, round(size * CROP_PADDING))


def test_transform(size: int, resize: float = PHOTOGRAPH_RESIZE) -> v2.Transform:
    """Return the transform of test images: shortest side to ``size * resize``, then the central square."""
    return v2.Compose(
        [v2.Resize(round(size * resize), antialias=True), v2.CenterCrop(size), v2.PILToTensor()]
    )


def train_transform(augment: Augmentation) -> v2.Transform:
    """Return the transform of training photographs to uint8 (C, S, S), random by torch's seed."""
    size = augment.image_size
    match augment.kind:
        case AugmentKind.NONE:
            return test_transform(size)
        case AugmentKind.FLIP:
            return v2.Compose([test_transform(size), v2.RandomHorizontalFlip()])
        case AugmentKind.FLIP_CROP:
            crop = v2.RandomCrop(size, padding=crop_padding(size))
            return v2.Compose([test_transform(size), crop, v2.RandomHorizontalFlip()])
        case AugmentKind.RANDOM_RESIZED_CROP | AugmentKind.AUTO:
            crop = v2.RandomResizedCrop(size, (augment.crop_area_min, 1.0), antialias=True)
            return v2.Compose([crop, v2.RandomHorizontalFlip(), v2.PILToTensor()])


def augment_batch(images: Tensor, augment: Augmentation, generator: torch.Generator, mirror: bool) -> Tensor:
    """Augment a whole batch of small uint8 images (N, C, H, W) at once, at the size that they have;
    ``mirror`` False leaves flips out.

    Random choices are drawn on the processor, so that they are the same wherever the images are.
    """
    match augment.kind:
        case AugmentKind.NONE:
            return images
        case AugmentKind.FLIP:
            pass
        case AugmentKind.FLIP_CROP | AugmentKind.AUTO:
            images = _shifted(images, crop_padding(images.shape[-1]), generator)
        case AugmentKind.RANDOM_RESIZED_CROP:
            images = _resized_crops(images, augment.crop_area_min, generator)
    return _flipped(images, generator) if mirror else images


def resize_batch(images: Tensor, size: int) -> Tensor:
    """Return uint8 images (N, C, H, W) as (N, C, size, size); images of that size are left as they are."""
    if images.shape[-2:] == (size, size):
        return images
    return vision.resize(images, [size, size], antialias=True)


def _flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    chosen = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(-1), images)


def _shifted(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    # (N, C, 2p+1, 2p+1, H, W) is a view of every window; one is taken for each image.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(2 * padding + 1, (2, count), generator=generator).to(images.device)
    return windows[torch.arange(count, device=images.device), :, top, left]


def _resized_crops(images: Tensor, area_min: float, generator: torch.Generator) -> Tensor:
    size = list(images.shape[-2:])
    seeds = torch.randint(2**62, (len(images),), generator=generator).tolist()
    crop = v2.RandomResizedCrop(size, (area_min, 1.0), antialias=True)
    with torch.random.fork_rng(devices=[]):
        crops = []
        for image, seed in zip(images, seeds, strict=True):
            torch.manual_seed(seed)
            crops.append(crop(image))
    return torch.stack(crops)
