"""What every source promises: order, seeds, resumption, limits."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from dirnet_convert.data.augment import Augmentation
from dirnet_convert.data.registry import open_data
from dirnet_convert.data.source import ImageSource, Shard, Split, mixed_seed, spread
from dirnet_convert.errors import UsageError
from dirnet_convert.recipe import AugmentKind, DataOptions

FolderMaker = Callable[..., Path]

SEED = 11


@pytest.fixture(params=["tensor", "files", "workers"])
def source(request: pytest.FixtureRequest, make_folder: FolderMaker) -> ImageSource:
    if request.param == "tensor":
        return open_data(DataOptions("digits"))
    workers = 1 if request.param == "workers" else 0
    root = make_folder(("ant", "bee", "cat"), count=7)
    return open_data(DataOptions(f"folder:{root}", image_size=24, workers=workers))


@pytest.mark.parametrize("augment", list(AugmentKind))
def test_a_resumed_epoch_sees_the_same_batches(source: ImageSource, augment: AugmentKind) -> None:
    whole = list(islice(source.train_batches(4, Augmentation(augment), SEED, epoch=2), 4))
    resumed = list(islice(source.train_batches(4, Augmentation(augment), SEED, epoch=2, start_batch=2), 2))
    for (images, labels), (again, labels_again) in zip(whole[2:], resumed, strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, labels_again)


def test_epochs_and_seeds_differ(source: ImageSource) -> None:
    def first(seed: int, epoch: int) -> torch.Tensor:
        return next(source.train_batches(4, Augmentation(AugmentKind.FLIP_CROP), seed, epoch))[0]

    assert not torch.equal(first(SEED, 0), first(SEED, 1))
    assert not torch.equal(first(SEED, 0), first(SEED + 1, 0))
    assert torch.equal(first(SEED, 0), first(SEED, 0))


def test_the_global_generator_is_left_alone(source: ImageSource) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    list(islice(source.train_batches(4, Augmentation(AugmentKind.RANDOM_RESIZED_CROP), SEED, 0), 2))
    list(source.test_batches(64))
    source.calibration_images(4, SEED)
    assert torch.equal(before, torch.random.get_rng_state())


def test_batches_are_whole_and_normalized(source: ImageSource) -> None:
    size = source.info.image_size
    batches = list(source.train_batches(4, Augmentation(AugmentKind.NONE), SEED, 0))
    assert len(batches) == source.steps_per_epoch(4) == source.train_size // 4
    for images, labels in batches:
        assert images.shape == (4, 3, size, size)
        assert images.dtype == torch.float32 and labels.dtype == torch.int64
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (source.info.mean, source.info.std))
    pixels = batches[0][0] * std + mean
    assert pixels.min() > -1e-5 and pixels.max() < 1 + 1e-5


def test_auto_is_what_suits_the_images(source: ImageSource) -> None:
    in_memory = source.info.name == "digits"
    suited = AugmentKind.FLIP_CROP if in_memory else AugmentKind.RANDOM_RESIZED_CROP
    for kind in AugmentKind:
        images, auto = (
            next(source.train_batches(4, Augmentation(chosen), SEED, 0))[0]
            for chosen in (kind, AugmentKind.AUTO)
        )
        assert torch.equal(images, auto) == (kind in (suited, AugmentKind.AUTO)), kind


@pytest.mark.parametrize("augment", list(AugmentKind))
def test_training_images_may_have_a_size_of_their_own(source: ImageSource, augment: AugmentKind) -> None:
    images, labels = next(source.train_batches(4, Augmentation(augment, image_size=20), SEED, 0))
    assert images.shape == (4, 3, 20, 20)
    own, same_labels = next(source.train_batches(4, Augmentation(augment), SEED, 0))
    assert own.shape[-1] == source.info.image_size != 20
    assert torch.equal(labels, same_labels)
    assert next(source.test_batches(4))[0].shape == own.shape


def test_every_test_image_comes_once_in_order(source: ImageSource) -> None:
    labels = torch.cat([labels for _, labels in source.test_batches(5)])
    assert len(labels) == source.test_size
    again = torch.cat([labels for _, labels in source.test_batches(64)])
    assert torch.equal(labels, again)


def test_limits_keep_every_class(source: ImageSource) -> None:
    limited = torch.cat([labels for _, labels in source.test_batches(64, limit=source.info.classes * 2)])
    assert len(limited) == source.info.classes * 2
    assert len(limited.unique()) >= 3
    assert source.steps_per_epoch(2, limit=6) == 3


def test_too_few_images_for_a_batch(source: ImageSource) -> None:
    with pytest.raises(UsageError, match="smaller batch size"):
        source.steps_per_epoch(source.train_size + 1)


def test_calibration_is_spread_over_classes_and_repeatable(source: ImageSource) -> None:
    count = source.info.classes * 2
    images = source.calibration_images(count, SEED)
    assert images.shape[0] == count
    assert torch.equal(images, source.calibration_images(count, SEED))
    assert not torch.equal(images, source.calibration_images(count, SEED + 1))
    assert len(source.calibration_images(10**6, SEED)) == source.train_size


def test_options_limit_the_sizes(make_folder: FolderMaker) -> None:
    root = make_folder(("ant", "bee"), count=6)
    source = open_data(DataOptions(f"folder:{root}", image_size=16, train_limit=8, test_limit=4))
    assert (source.train_size, source.test_size) == (8, 4)
    assert torch.cat([labels for _, labels in source.test_batches(3)]).tolist() == [0, 0, 1, 1]


def test_spread_and_seed() -> None:
    assert spread(10, 0) == spread(10, 99) == list(range(10))
    assert spread(10, 5) == [0, 2, 4, 6, 8]
    seeds = {mixed_seed(a, b) for a in range(-2, 20) for b in range(20)}
    assert len(seeds) == 22 * 20
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_held_out_images_are_a_share_of_each_class_and_of_no_other_part(source: ImageSource) -> None:
    whole = len(source._labels(Split.TRAIN))
    rest, chosen = source.hold_out(0.25, SEED)
    assert chosen.test_size == round(0.25 * whole) and rest.train_size == whole - chosen.test_size
    assert rest.test_size == source.test_size and source.train_size == whole
    labels = torch.cat([labels for _, labels in chosen.test_batches(64)])
    counts, sizes = (
        torch.bincount(found, minlength=source.info.classes)
        for found in (labels, source._labels(Split.TRAIN))
    )
    assert bool(((counts - 0.25 * sizes).abs() <= 1).all())
    # Unaugmented and in order: no held-out image is among those that are left.
    assert not set(chosen._positions(Split.TEST, 0)) & set(rest._positions(Split.TRAIN, 0))
    again = source.hold_out(0.25, SEED)[1]
    first, second = next(chosen.test_batches(8)), next(again.test_batches(8))
    assert torch.equal(first[0], second[0])
    assert chosen._positions(Split.TEST, 0) != source.hold_out(0.25, SEED + 1)[1]._positions(Split.TEST, 0)


def test_a_rare_class_gives_its_share_of_held_out_images(make_folder: FolderMaker) -> None:
    root = make_folder(("ant", "bee"), count=40)
    for k in range(8, 40):
        (root / "train" / "bee" / f"{k}.png").unlink()
    source = open_data(DataOptions(f"folder:{root}", image_size=16))
    rest, chosen = source.hold_out(0.25, SEED)
    held = torch.cat([labels for _, labels in chosen.test_batches(64)])
    assert torch.bincount(held).tolist() == [10, 2]
    assert torch.bincount(rest._labels(Split.TRAIN)[rest._positions(Split.TRAIN, 0)]).tolist() == [30, 6]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.99999])
def test_a_share_that_leaves_nothing_on_one_side_is_refused(source: ImageSource, share: float) -> None:
    with pytest.raises(UsageError, match="choose another share"):
        source.hold_out(share / 10 if share < 0.5 else share, SEED)


@pytest.mark.parametrize("start", [0, 1])
def test_the_parts_of_a_shard_are_the_whole_batches(source: ImageSource, start: int) -> None:
    def batches(size: int, shard: Shard) -> list[tuple[torch.Tensor, torch.Tensor]]:
        found = source.train_batches(
            size, Augmentation(AugmentKind.NONE), SEED, 1, start_batch=start, shard=shard
        )
        return list(islice(found, 3 - start))

    whole = batches(4, Shard())
    parts = [batches(2, Shard(index, 2)) for index in range(2)]
    assert len(whole) == len(parts[0]) == len(parts[1]) > 0
    for (images, labels), *both in zip(whole, *parts, strict=True):
        assert torch.equal(images, torch.cat([part[0] for part in both]))
        assert torch.equal(labels, torch.cat([part[1] for part in both]))


def test_the_parts_of_the_test_images_are_all_of_them_once(source: ImageSource) -> None:
    shares = [source.test_share(Shard(index, 3)) for index in range(3)]
    assert sum(share.test_size for share in shares) == source.test_size
    positions = [set(share._positions(Split.TEST, 0)) for share in shares]
    assert not positions[0] & positions[1] and set().union(*positions) == set(
        source._positions(Split.TEST, 0)
    )
    assert source.test_share(Shard(0, 10_000)).test_size == source.test_size


@pytest.mark.parametrize("augment", list(AugmentKind))
def test_batches_come_from_the_device_that_is_asked_for(source: ImageSource, augment: AugmentKind) -> None:
    # The meta device is on every machine.
    moved = source.on(torch.device("meta"))
    for images, labels in (
        next(moved.train_batches(4, Augmentation(augment), SEED, 0)),
        next(moved.test_batches(4)),
    ):
        assert images.device.type == "meta" and images.dtype == torch.float32
        assert images.shape == (4, 3, source.info.image_size, source.info.image_size)
        assert labels.device.type == "cpu"
    assert next(source.train_batches(4, Augmentation(augment), SEED, 0))[0].device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no accelerator")
def test_an_accelerator_sees_the_processor_s_batches() -> None:
    source = open_data(DataOptions("digits"))
    moved = source.on(torch.device("cuda"))
    for augment in AugmentKind:
        images, labels = next(source.train_batches(4, Augmentation(augment), SEED, 0))
        there, labels_there = next(moved.train_batches(4, Augmentation(augment), SEED, 0))
        torch.testing.assert_close(there.cpu(), images)
        assert torch.equal(labels, labels_there)
