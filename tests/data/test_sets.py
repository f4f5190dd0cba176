"""The single data sets: CIFAR, digits, folders, ImageNet."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from dirnet_convert.data.augment import Augmentation
from dirnet_convert.data.file_source import BrokenImageError, load_image, prepare_image
from dirnet_convert.data.imagenet import imagenet_classes
from dirnet_convert.data.registry import open_data
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.recipe import AugmentKind, DataOptions

FolderMaker = Callable[..., Path]

SEED = 5


def test_digits_are_split_for_good() -> None:
    source = open_data(DataOptions("digits"))
    assert source.info.classes == 10
    assert (source.info.channels, source.info.image_size) == (3, 32)
    assert source.train_size + source.test_size == 1797
    test = torch.cat([images for images, _ in source.test_batches(256)]).flatten(1)
    train = torch.cat(
        [images for images, _ in source.train_batches(1, Augmentation(AugmentKind.NONE), SEED, 0)]
    ).flatten(1)
    assert not {row.numpy().tobytes() for row in train} & {row.numpy().tobytes() for row in test}
    assert abs(train.mean()) < 1e-3
    assert abs(train.std() - 1) < 1e-3


def test_digits_are_never_mirrored() -> None:
    source = open_data(DataOptions("digits"))
    plain = next(source.train_batches(64, Augmentation(AugmentKind.NONE), SEED, 0))[0]
    assert torch.equal(plain, next(source.train_batches(64, Augmentation(AugmentKind.FLIP), SEED, 0))[0])


def test_cifar100_reads_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR100

    folder = tmp_path / CIFAR100.base_folder
    folder.mkdir()
    generator = np.random.default_rng(SEED)

    def write(name: str, entry: dict) -> list[str]:
        content = pickle.dumps(entry)
        (folder / name).write_bytes(content)
        return [name, hashlib.md5(content).hexdigest()]

    pixels = generator.integers(0, 256, (200, 3072), dtype=np.uint8)
    labels = {"fine_labels": [k % 100 for k in range(200)], "coarse_labels": [0] * 200}
    monkeypatch.setattr(CIFAR100, "train_list", [write("train", {"data": pixels, **labels})])
    monkeypatch.setattr(CIFAR100, "test_list", [write("test", {"data": pixels, **labels})])
    names = write("meta", {"fine_label_names": [f"class {k}" for k in range(100)]})
    monkeypatch.setattr(CIFAR100, "meta", {"filename": names[0], "key": "fine_label_names", "md5": names[1]})
    source = open_data(DataOptions("cifar100", dir=str(tmp_path), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    assert source.info.classes == 100
    assert source.info.class_names[7] == "class 7"
    images, found = next(iter(source.test_batches(200)))
    assert found.tolist() == labels["fine_labels"]
    assert torch.equal((images * 255).round().to(torch.uint8).flatten(1), torch.from_numpy(pixels))


@pytest.mark.real_data
def test_cifar10_from_its_official_files(real_data_root: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, real_data_root / "unpack_cifar10.py", tmp_path], check=True, capture_output=True
    )
    for folder in (tmp_path, tmp_path / "cifar-10-batches-py"):
        source = open_data(DataOptions("cifar10", dir=str(folder)))
        assert (source.train_size, source.test_size, source.info.classes) == (50_000, 10_000, 10)
        assert source.info.class_names[0] == "airplane"
    _, labels = next(iter(source.test_batches(8)))
    assert labels.tolist() == [3, 8, 8, 0, 6, 6, 1, 6]


def test_folder_with_two_splits(make_folder: FolderMaker) -> None:
    source = open_data(DataOptions(f"folder:{make_folder(('ant', 'bee'))}", image_size=32))
    assert source.info.class_names == ("ant", "bee")
    assert (source.train_size, source.test_size) == (12, 12)


def test_hidden_folders_hold_no_images(make_folder: FolderMaker) -> None:
    root = make_folder(("ant", "bee"))
    image = next((root / "train" / "ant").iterdir())
    for folder in (".ipynb_checkpoints", "more"):
        (image.parent / folder).mkdir()
        shutil.copy(image, image.parent / folder)
    assert open_data(DataOptions(f"folder:{root}", image_size=32)).train_size == 12 + 1


def test_folder_below_the_data_folder(make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder(("ant", "bee"))
    assert open_data(DataOptions(f"folder:{root.name}", dir=str(root.parent))).train_size == 12
    monkeypatch.setenv("DIRNET_DATA", str(root.parent))
    assert open_data(DataOptions(f"folder:{root.name}")).train_size == 12


def test_folder_holds_out_a_fixed_part_of_each_class(make_folder: FolderMaker) -> None:
    root = make_folder(("ant", "bee"), splits=("",), count=10)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    sources = [open_data(DataOptions(f"folder:{root}", image_size=32, mean=mean, std=std)) for _ in range(2)]
    assert (sources[0].train_size, sources[0].test_size) == (16, 4)
    test, again = (next(iter(source.test_batches(8))) for source in sources)
    assert torch.equal(test[0], again[0])
    assert test[1].tolist() == [0, 0, 1, 1]
    train = next(sources[0].train_batches(16, Augmentation(AugmentKind.NONE), SEED, 0))[0]
    assert not {image.numpy().tobytes() for image in train} & {image.numpy().tobytes() for image in test[0]}


def test_folder_with_differing_classes(make_folder: FolderMaker) -> None:
    root = make_folder(("ant", "bee"))
    (root / "val" / "bee").rename(root / "val" / "wasp")
    with pytest.raises(UsageError, match="must have the same classes; they differ in 'bee', 'wasp'"):
        open_data(DataOptions(f"folder:{root}"))


def test_folder_without_images_or_classes(make_folder: FolderMaker, tmp_path: Path) -> None:
    root = make_folder(("ant", "bee"))
    (root / "train" / "cat").mkdir()
    (root / "val" / "cat").mkdir()
    with pytest.raises(UsageError, match="cat has no image files"):
        open_data(DataOptions(f"folder:{root}"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="one per class; it has 0"):
        open_data(DataOptions(f"folder:{tmp_path / 'empty'}"))


def test_folder_with_train_alone(make_folder: FolderMaker) -> None:
    with pytest.raises(UsageError, match="has train/ but"):
        open_data(DataOptions(f"folder:{make_folder(('ant', 'bee'), splits=('train',))}"))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"", b"text, not pixels", "cut"])
def test_a_broken_image_is_named(make_folder: FolderMaker, content: bytes | str, workers: int) -> None:
    root = make_folder(("ant", "bee"))
    broken = root / "val" / "bee" / "3.png"
    broken.write_bytes(broken.read_bytes()[:900] if content == "cut" else content)
    source = open_data(DataOptions(f"folder:{root}", image_size=16, workers=workers))
    with pytest.raises(DirnetError, match=r"bee/3\.png cannot be read as an image") as caught:
        list(source.test_batches(4))
    assert "\n" not in str(caught.value)


def test_imagenet_subset_keeps_imagenets_numbers(make_folder: FolderMaker) -> None:
    root = make_folder(("n02102040", "n03394916"))
    source = open_data(DataOptions("imagenet", dir=str(root), image_size=32))
    assert source.info.classes == 1000 == len(source.info.class_names)
    assert torch.cat([labels for _, labels in source.test_batches(5)]).unique().tolist() == [217, 566]
    assert "springer" in source.info.class_names[217]
    augment = Augmentation(AugmentKind.RANDOM_RESIZED_CROP)
    assert next(source.train_batches(4, augment, SEED, 0))[0].shape == (4, 3, 32, 32)


def test_imagenet_refuses_other_names(make_folder: FolderMaker) -> None:
    with pytest.raises(UsageError, match=r"ant is not named by the WordNet id.*--data folder:"):
        open_data(DataOptions("imagenet", dir=str(make_folder(("ant", "n03394916")))))


def test_imagenet_labels_file_is_for_validation(make_folder: FolderMaker) -> None:
    root = make_folder(("images",), splits=("",), count=5)
    (root / "labels.csv").write_text("file,label\n" + "".join(f"{k}.png,{k * 100}\n" for k in range(5)))
    source = open_data(DataOptions("imagenet", dir=str(root), image_size=32))
    assert (source.train_size, source.test_size) == (0, 5)
    assert next(iter(source.test_batches(8)))[1].tolist() == [0, 100, 200, 300, 400]
    assert source.calibration_images(3, SEED).shape == (3, 3, 32, 32)
    with pytest.raises(UsageError, match="only validation images"):
        next(source.train_batches(2, Augmentation(AugmentKind.NONE), SEED, 0))


@pytest.mark.parametrize(
    "row",
    ["a.png,1000", "a.png,cat", "a.png", "a.png,\u00b2", "a.png," + "9" * 5000],
    ids=["too large", "a word", "none", "a small 2", "5000 digits"],
)
def test_imagenet_labels_file_with_a_wrong_row(tmp_path: Path, row: str) -> None:
    (tmp_path / "labels.csv").write_text(f"file,label\nb.png,1\n{row}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 3"):
        open_data(DataOptions("imagenet", dir=str(tmp_path)))


@pytest.mark.parametrize(
    "content",
    ["b.png,1\nm\u00e4use.png,2\n".encode("latin-1"), b"x" * 200_000 + b",1\n"],
    ids=["not UTF-8", "an endless field"],
)
def test_imagenet_labels_file_that_is_no_table(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(UsageError, match=r"labels\.csv is no table of comma-separated values in UTF-8"):
        open_data(DataOptions("imagenet", dir=str(tmp_path)))


def test_imagenets_table_is_in_order() -> None:
    ids, names = imagenet_classes()
    assert len(ids) == len(names) == 1000
    assert ids == tuple(sorted(ids))
    assert (ids[0], names[0].split(",")[0]) == ("n01440764", "tench")


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["imagenet", "folder"])
def test_real_photographs(real_data_root: Path, name: str) -> None:
    root = real_data_root / "imagenette-128"
    options = DataOptions("imagenet", dir=str(root)) if name == "imagenet" else DataOptions(f"folder:{root}")
    source = open_data(options)
    assert (source.train_size, source.test_size) == (9469, 1966)
    images, labels = next(iter(source.test_batches(30, limit=30)))
    assert images.shape == (30, 3, 224, 224)
    numbers = {"imagenet": [0, 217, 482, 491, 497, 566, 569, 571, 574, 701], "folder": list(range(10))}
    assert labels.unique().tolist() == numbers[name]


@pytest.mark.real_data
def test_real_synset_words_agree(real_data_root: Path) -> None:
    lines = (real_data_root / "imagenet-val-650" / "synset_words.txt").read_text().splitlines()
    assert tuple(line.split(" ")[0] for line in lines) == imagenet_classes()[0]


def test_one_image_for_a_network(make_folder: FolderMaker, tmp_path: Path) -> None:
    source = open_data(DataOptions(f"folder:{make_folder(('ant', 'bee'))}", image_size=32))
    path = tmp_path / "images" / "val" / "ant" / "0.png"
    expected = next(iter(source.test_batches(1)))[0]
    assert torch.equal(prepare_image(path, source.info), expected)
    with pytest.raises(BrokenImageError, match="no such file"):
        load_image(tmp_path / "nowhere.png")


def test_a_small_image_is_taken_whole(tmp_path: Path) -> None:
    source = open_data(DataOptions("digits"))
    images, _ = next(iter(source.test_batches(1)))
    mean, std = source.info.mean[0], source.info.std[0]
    pixels = ((images[0, 0] * std + mean) * 255).round().to(torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "digit.png")
    assert torch.equal(prepare_image(tmp_path / "digit.png", source.info), images)


def test_a_turned_photograph_is_put_upright(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((20, 40, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert load_image(tmp_path / "turned.jpg").size == (20, 40)


def _exif(*tags: tuple[int, int, int, bytes], magic: bytes = b"II*\0") -> bytes:
    """Return EXIF data of tags: number, type, count, and four bytes of value."""
    entries = b"".join(struct.pack("<HHI4s", *tag) for tag in tags)
    return b"Exif\0\0" + magic + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("exif", "size"),
    [
        # A resolution or a compression that is a text, a maker that is a number: turned all the same.
        (_exif((0x0112, 3, 1, b"\6\0\0\0"), (0x011A, 2, 2, b"ab\0\0")), (20, 40)),
        (_exif((0x0112, 3, 1, b"\6\0\0\0"), (0x0103, 2, 2, b"ab\0\0")), (20, 40)),
        (_exif((0x0112, 3, 1, b"\6\0\0\0"), (0x010F, 11, 1, b"\1\2\3\4")), (20, 40)),
        # Nothing that could be read: as it is stored.
        (_exif((0x0112, 3, 1, b"\6\0\0\0"), magic=b"IX*\0"), (40, 20)),
        (_exif((0x0112, 2, 2, b"ab\0\0")), (40, 20)),
    ],
    ids=["resolution", "compression", "maker", "unknown form", "orientation"],
)
def test_a_photograph_with_damaged_exif_data_is_taken(
    tmp_path: Path, exif: bytes, size: tuple[int, int]
) -> None:
    Image.new("RGB", (40, 20), (200, 10, 10)).save(tmp_path / "damaged.jpg", exif=exif)
    image = load_image(tmp_path / "damaged.jpg")
    assert image.size == size
    assert image.getpixel((0, 0))[0] > 150


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_every_orientation_is_put_upright(tmp_path: Path, orientation: int, name: str) -> None:
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / name, exif=exif)
    with Image.open(tmp_path / name) as stored:
        expected = ImageOps.exif_transpose(stored)
    assert np.array_equal(np.asarray(load_image(tmp_path / name)), np.asarray(expected))


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_grey_values_of_sixteen_bits_keep_their_tones(tmp_path: Path, name: str, dtype: str) -> None:
    values = np.array([[0, 257, 32_896], [65_535, 128, 129]], dtype=dtype)
    Image.fromarray(values).save(tmp_path / name)
    pixels = np.asarray(load_image(tmp_path / name))
    assert pixels.shape == (2, 3, 3)
    assert pixels[:, :, 0].tolist() == pixels[:, :, 2].tolist() == [[0, 1, 128], [255, 0, 1]]


@pytest.mark.parametrize(("dtype", "mode"), [(np.int32, "I"), (np.float32, "F")])
def test_values_of_32_bits_are_refused(tmp_path: Path, dtype: type, mode: str) -> None:
    Image.fromarray(np.full((4, 4), 70_000, dtype=dtype)).save(tmp_path / "a.tif")
    with pytest.raises(BrokenImageError, match=rf"a\.tif cannot be read.*mode {mode} are not taken"):
        load_image(tmp_path / "a.tif")
