"""CIFAR-10 and CIFAR-100, read from their official python batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torchvision.datasets import CIFAR10, CIFAR100

from dirnet_convert.data.source import IMAGENET_MEAN, IMAGENET_STD, DataInfo, ImageSource
from dirnet_convert.data.tensor_source import TensorSource, TensorSplit
from dirnet_convert.data.where import Request
from dirnet_convert.errors import DirnetError, UsageError


@dataclass(frozen=True)
class CifarForm:
    """One of the two sets: its torchvision class, its title, its folder and the archive that holds it."""

    title: str
    dataset: type[CIFAR10]

    @property
    def folder(self) -> str:
        return self.dataset.base_folder

    @property
    def url(self) -> str:
        return self.dataset.url


CIFAR10_FORM = CifarForm("CIFAR-10", CIFAR10)
CIFAR100_FORM = CifarForm("CIFAR-100", CIFAR100)


def open_cifar10(request: Request) -> ImageSource:
    """Open CIFAR-10; the errors are open_cifar's."""
    return open_cifar(CIFAR10_FORM, request)


def open_cifar100(request: Request) -> ImageSource:
    """Open CIFAR-100 with its 100 fine labels; the errors are open_cifar's."""
    return open_cifar(CIFAR100_FORM, request)


def open_cifar(form: CifarForm, request: Request) -> ImageSource:
    """Read both splits into memory, downloading first where that was asked for.

    The normalization is ImageNet's unless the request says otherwise: the public ResNet-20 and ResNet-56
    weights for CIFAR-10 were trained with it.

    Raises:
        UsageError: the files are not there, or are not byte for byte the official ones.
        DirnetError: the download failed.
    """
    root = _root(form, request)
    if request.download:
        _download(form, root)
    # torchvision unpickles these files only after comparing each one's md5 with its own list.
    try:
        train, test = form.dataset(str(root), train=True), form.dataset(str(root), train=False)
    except RuntimeError:
        raise UsageError(_missing(form, root)) from None
    names = tuple(train.classes)
    info = DataInfo(request.name, len(names), names, 3, 32, IMAGENET_MEAN, IMAGENET_STD)
    return TensorSource(request.wanted.applied(info), request.limits, _split(train), _split(test))


def _root(form: CifarForm, request: Request) -> Path:
    root = request.folder or Path("data")
    return root.parent if root.name == form.folder else root


def _split(dataset: CIFAR10) -> TensorSplit:
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return TensorSplit(images, torch.tensor(dataset.targets, dtype=torch.int64))


def _missing(form: CifarForm, root: Path) -> str:
    folder = root / form.folder
    state = "is incomplete or damaged" if folder.is_dir() else "does not exist"
    return (
        f"{form.title} is not there: {folder} {state}; run again with --download, or unpack {form.url} "
        f"in {root}, or say where it lies with --data-dir or DIRNET_DATA."
    )


def _download(form: CifarForm, root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    try:
        form.dataset(str(root), train=False, download=True)
    except (OSError, RuntimeError) as error:
        raise DirnetError(
            f"Downloading {form.title} from {form.url} failed ({error}); check the network, "
            f"or put {form.folder} into {root} by hand."
        ) from error
