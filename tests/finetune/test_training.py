"""Trainings of run folders: pretrain, convert, finetune, and what is refused between them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dirnet_convert.convert.binarize_network import binarize_network
from dirnet_convert.convert.new_run import convert_to_run
from dirnet_convert.convert.rebuild import load_fp32_run
from dirnet_convert.convert.representations import with_representations
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.finetune.observer import SilentObserver, StepReport
from dirnet_convert.recipe import (
    Activation,
    ConvertOptions,
    DataOptions,
    DistillOptions,
    EstimatorKind,
    EstimatorOptions,
    ModelOptions,
    Recipe,
    TrainOptions,
)
from dirnet_convert.run import RunFolder, Stage
from dirnet_convert.training import finetune_run, new_pretrain_run, pretrain_run

NETWORK = """
from torch import nn


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + x)


def small(num_classes=10):
    return nn.Sequential(
        nn.Conv2d(CHANNELS, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), Block(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, num_classes),
    )


class ToldItsSize(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.network = small(num_classes)

    def forward(self, x):
        return self.network(x) / int(x.shape[-1])


def told_its_size(num_classes=10):
    return ToldItsSize(num_classes)


class Branching(ToldItsSize):
    def forward(self, x):
        y = self.network(x)
        return y if y.sum() == 0 else y * 1


def branching(num_classes=10):
    return Branching(num_classes)


class Auxiliary(Branching):
    def forward(self, x):
        y = super().forward(x)
        return (y, 0.5 * y) if self.training else y


def auxiliary(num_classes=10):
    return Auxiliary(num_classes)


class Untrainable(ToldItsSize):
    def forward(self, x):
        return self.network(x, self.target) if self.training else self.network(x)


def untrainable(num_classes=10):
    return Untrainable(num_classes)


def pooled_norm(num_classes=10):
    return nn.Sequential(*small()[:-2], nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, num_classes))


class Rooted(ToldItsSize):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.network, self.head = self.network[:5], self.network[5:]

    def forward(self, x):
        return self.head((self.network(x) + 1e-6).sqrt())


def rooted(num_classes=10):
    return Rooted(num_classes)
"""
TRAIN = TrainOptions(epochs=1, batch_size=32, lr=0.01, compile=False)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    from dirnet_convert.data.registry import open_data

    data = DataOptions(name="digits", train_limit=96, test_limit=50)
    file = tmp_path_factory.mktemp("network") / "network.py"
    file.write_text(NETWORK.replace("CHANNELS", str(open_data(data).info.channels)))
    return Recipe(
        model=ModelOptions(f"{file}:small", "none"),
        data=data,
        convert=ConvertOptions(calibration_images=32),
        pretrain=TRAIN,
        finetune=TRAIN,
        distill=DistillOptions(logit_weight=1.0, rbd_weight=1.0),
    )


@pytest.fixture
def pretrained(recipe: Recipe, tmp_path: Path) -> RunFolder:
    run = new_pretrain_run(recipe, tmp_path / "fp32")
    assert pretrain_run(run).epochs == 1
    return run


def test_pretrain_convert_finetune(recipe: Recipe, pretrained: RunFolder, tmp_path: Path) -> None:
    assert pretrained.read_config().stage is Stage.PRETRAINED
    assert pretrain_run(pretrained).already_finished
    source = dataclasses.replace(recipe, model=ModelOptions(str(pretrained.path)))
    run = convert_to_run(source, tmp_path / "binary").run
    teacher, before = load_file(run.teacher_path), load_file(run.model_path)
    config = run.read_config()
    ste = dataclasses.replace(
        config.recipe, estimator=EstimatorOptions(weights=EstimatorKind.STE, inputs=EstimatorKind.STE)
    )
    result = finetune_run(run, ste)
    assert not result.already_finished and 0 <= result.scores["test_top1_percent"] <= 100
    after = load_file(run.model_path)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    same = load_file(run.teacher_path)
    assert all(torch.equal(teacher[name], same[name]) for name in teacher)
    config = run.read_config()
    assert config.stage is Stage.FINETUNED and config.recipe == ste
    # The recipe is kept, so that nothing need be said to go on with it.
    assert finetune_run(run).already_finished


def test_rbd_without_representations_is_refused_and_not_kept(recipe: Recipe, tmp_path: Path) -> None:
    model = recipe.model.name.replace(":small", ":branching")
    fp32 = new_pretrain_run(dataclasses.replace(recipe, model=ModelOptions(model, "none")), tmp_path / "fp32")
    pretrain_run(fp32)
    run = convert_to_run(dataclasses.replace(recipe, model=ModelOptions(str(fp32.path))), tmp_path / "b").run
    config = run.read_config()
    assert config.recipe.distill == dataclasses.replace(recipe.distill, rbd_weight=0.0)
    with pytest.raises(UsageError, match=r"no representations to compare .*rbd_weight=0"):
        finetune_run(run, dataclasses.replace(config.recipe, distill=recipe.distill))
    assert run.read_config() == config
    assert finetune_run(run).epochs == 1


def test_what_was_decided_earlier_is_refused(recipe: Recipe, pretrained: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dirnet convert"):
        finetune_run(pretrained)
    source = dataclasses.replace(recipe, model=ModelOptions(str(pretrained.path)))
    run = convert_to_run(source, tmp_path / "binary").run
    config = run.read_config()
    with pytest.raises(UsageError, match="dirnet finetune"):
        pretrain_run(run)
    other = dataclasses.replace(config.recipe, convert=ConvertOptions(balance_weights=False))
    with pytest.raises(UsageError, match="convert anew"):
        finetune_run(run, other)
    assert run.read_config() == config


def test_images_unlike_the_runs_are_refused(recipe: Recipe, pretrained: RunFolder, tmp_path: Path) -> None:
    source = dataclasses.replace(recipe, model=ModelOptions(str(pretrained.path)))
    run = convert_to_run(source, tmp_path / "binary").run
    config = run.read_config()
    grey = dataclasses.replace(recipe.data, mean=(0.25,) * config.channels)
    large = dataclasses.replace(recipe.data, image_size=64)
    for data, field in ((grey, "mean"), (large, "image_size")):
        for train, folder in ((finetune_run, run), (pretrain_run, pretrained)):
            asked = dataclasses.replace(folder.read_config().recipe, data=data)
            with pytest.raises(UsageError, match=rf"data\.{field} is .* the run was made for"):
                train(folder, asked)
        with pytest.raises(UsageError, match=rf"data\.{field} is .* the run was made for"):
            convert_to_run(dataclasses.replace(source, data=data), tmp_path / "other")
    same = dataclasses.replace(recipe.data, mean=config.mean, image_size=config.image_size)
    assert finetune_run(run, dataclasses.replace(config.recipe, data=same)).epochs == 1
    assert run.read_config().mean == config.mean


def test_what_the_weights_do_not_have_is_told(recipe: Recipe, tmp_path: Path) -> None:
    told: list[str] = []
    run = new_pretrain_run(recipe, tmp_path / "random", tell=told.append)
    state = load_file(run.model_path)
    assert told == []
    others = [k for k in state if k != "0.weight" and not k.endswith("num_batches_tracked")]
    save_file({"0.weight": state["0.weight"], "other.weight": torch.ones(1)}, tmp_path / "few.safetensors")
    model = dataclasses.replace(recipe.model, weights=str(tmp_path / "few.safetensors"))
    new_pretrain_run(dataclasses.replace(recipe, model=model), tmp_path / "few", tell=told.append)
    assert len(told) == 1 and f"{len(others)} of {len(state)} tensors start at random" in told[0]


def test_refused_options_leave_the_run_as_it_was(recipe: Recipe, pretrained: RunFolder) -> None:
    config = pretrained.read_config()
    wrong = dataclasses.replace(config.recipe, pretrain=dataclasses.replace(TRAIN, lr=0.5, epochs=2))
    with pytest.raises(UsageError, match=r"pretrain\.lr = 0\.01, not 0\.5"):
        pretrain_run(pretrained, wrong)
    impossible = dataclasses.replace(config.recipe, pretrain=dataclasses.replace(TRAIN, lr=-1.0))
    with pytest.raises(UsageError, match=r"pretrain\.lr"):
        pretrain_run(pretrained, impossible, restart=True)
    assert pretrained.read_config() == config
    assert pretrain_run(pretrained).already_finished
    assert pretrain_run(pretrained, wrong, restart=True).epochs == 2
    assert pretrained.read_config().recipe == wrong


def test_training_images_of_another_size(recipe: Recipe, pretrained: RunFolder, tmp_path: Path) -> None:
    config = pretrained.read_config()

    def sized(image_size: int) -> Recipe:
        return dataclasses.replace(config.recipe, pretrain=dataclasses.replace(TRAIN, image_size=image_size))

    with pytest.raises(UsageError, match=rf"image_size is 1, and.* that of the run is {config.image_size}"):
        pretrain_run(pretrained, sized(1), restart=True)
    assert pretrained.read_config() == config
    assert config.image_size != 16
    assert not pretrain_run(pretrained, sized(16), restart=True).already_finished
    # The network is for images of the same size as before.
    assert pretrained.read_config().image_size == config.image_size
    source = dataclasses.replace(recipe, model=ModelOptions(str(pretrained.path)))
    run = convert_to_run(source, tmp_path / "binary").run
    smaller = dataclasses.replace(
        run.read_config().recipe, finetune=dataclasses.replace(TRAIN, image_size=16)
    )
    assert not finetune_run(run, smaller).already_finished
    first = dataclasses.replace(TRAIN, small_image_size=1, small_first=0.5)
    with pytest.raises(UsageError, match=r"finetune\.small_image_size is 1, and this network"):
        finetune_run(run, dataclasses.replace(smaller, finetune=first), restart=True)


def test_two_steps_are_for_binary_networks(pretrained: RunFolder) -> None:
    config = pretrained.read_config()
    two = dataclasses.replace(config.recipe, pretrain=dataclasses.replace(TRAIN, inputs_first=0.5))
    with pytest.raises(UsageError, match=r"pretrain\.inputs_first is for binary networks"):
        pretrain_run(pretrained, two, restart=True)
    assert pretrained.read_config() == config


def test_auxiliary_outputs_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    model = ModelOptions(recipe.model.name.replace(":small", ":auxiliary"), "none")
    fp32 = new_pretrain_run(dataclasses.replace(recipe, model=model), tmp_path / "fp32")
    with pytest.raises(UsageError, match="returns a tuple while it is trained"):
        pretrain_run(fp32)
    weights = ModelOptions(model.name, str(fp32.model_path))
    run = convert_to_run(dataclasses.replace(recipe, model=weights), tmp_path / "binary").run
    with pytest.raises(UsageError, match="returns a tuple while it is trained"):
        finetune_run(run)


def test_a_network_that_fails_in_train_mode_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    model = ModelOptions(recipe.model.name.replace(":small", ":untrainable"), "none")
    fp32 = new_pretrain_run(dataclasses.replace(recipe, model=model), tmp_path / "fp32")
    with pytest.raises(UsageError, match=r"in train mode it does not take 2 .* no attribute .target"):
        pretrain_run(fp32)


def test_one_image_is_too_few_for_a_norm_of_single_pixels(recipe: Recipe, tmp_path: Path) -> None:
    single = dataclasses.replace(TRAIN, batch_size=1)
    alone = dataclasses.replace(recipe, pretrain=single, finetune=single)
    pooled = ModelOptions(recipe.model.name.replace(":small", ":pooled_norm"), "none")
    fp32 = new_pretrain_run(dataclasses.replace(alone, model=pooled), tmp_path / "fp32")
    with pytest.raises(UsageError, match=r"pretrain\.batch_size is 1, .*more than 1 value.*; take 2 or more"):
        pretrain_run(fp32)
    weights = ModelOptions(pooled.name, str(fp32.model_path))
    run = convert_to_run(dataclasses.replace(alone, model=weights), tmp_path / "binary").run
    config = run.read_config()
    with pytest.raises(UsageError, match=r"finetune\.batch_size is 1, .*; take 2 or more"):
        finetune_run(run)
    assert run.read_config() == config and not run.checkpoint_dir.exists()
    # Where maps are larger, one image at a time will do.
    assert pretrain_run(new_pretrain_run(alone, tmp_path / "other")).epochs == 1


def test_answers_that_are_no_numbers_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    model = ModelOptions(recipe.model.name.replace(":small", ":rooted"), "none")
    fp32 = new_pretrain_run(dataclasses.replace(recipe, model=model), tmp_path / "fp32")
    source = dataclasses.replace(recipe, model=ModelOptions(model.name, str(fp32.model_path)))
    with pytest.raises(DirnetError, match=r"not finite.*convert\.activation=keep"):
        convert_to_run(source, tmp_path / "binary")
    assert not (tmp_path / "binary").exists()
    keep = dataclasses.replace(source.convert, activation=Activation.KEEP)
    assert convert_to_run(dataclasses.replace(source, convert=keep), tmp_path / "kept").run.path.is_dir()


def test_a_graph_that_counted_with_its_size_serves_no_other(recipe: Recipe, tmp_path: Path) -> None:
    model = ModelOptions(recipe.model.name.replace(":small", ":told_its_size"), "none")
    trained = new_pretrain_run(dataclasses.replace(recipe, model=model), tmp_path / "fp32")
    pretrain_run(trained)
    source = dataclasses.replace(recipe, model=ModelOptions(str(trained.path)))
    run = convert_to_run(source, tmp_path / "binary").run
    config = run.read_config()
    sized = dataclasses.replace(config.recipe, finetune=dataclasses.replace(TRAIN, image_size=16))
    with pytest.raises(
        UsageError, match=rf"finetune\.image_size is 16.* of {config.image_size} pixels alone"
    ):
        finetune_run(run, sized)
    assert run.read_config() == config


def test_random_weights_follow_the_seed(recipe: Recipe, tmp_path: Path) -> None:
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run = new_pretrain_run(dataclasses.replace(recipe, seed=seed), tmp_path / name)
        states.append(load_file(run.model_path))
    assert torch.equal(states[0]["0.weight"], states[1]["0.weight"])
    assert not torch.equal(states[0]["0.weight"], states[2]["0.weight"])


def test_representations_are_chosen_by_name(recipe: Recipe, pretrained: RunFolder, tmp_path: Path) -> None:
    source = dataclasses.replace(recipe, model=ModelOptions(str(pretrained.path)))
    run = convert_to_run(source, tmp_path / "binary").run

    def losses(*globs: str) -> tuple[float, float]:
        distill = dataclasses.replace(recipe.distill, representations=globs)
        finetune_run(run, dataclasses.replace(run.read_config().recipe, distill=distill), restart=True)
        row = json.loads(run.metrics_path.read_text().splitlines()[-1])
        return row["rbd_loss"], row["logit_loss"]

    # The one block's end is what is compared without a choice, too; its weights are trained on in between.
    both, one = losses("4", "1"), losses("4")
    assert both[0] > one[0] > 0
    with pytest.raises(
        UsageError, match=r"'layer\*' names no module of both .* there are '0', '1', '2', '3'"
    ):
        losses("layer*")


def test_the_default_representations_are_the_blocks_ends(recipe: Recipe, pretrained: RunFolder) -> None:
    network = load_fp32_run(pretrained)
    image = torch.zeros(1, 3 if network[0].weight.shape[1] == 3 else 1, 32, 32)
    built = binarize_network(network, image, ConvertOptions(), EstimatorOptions())
    chosen = with_representations(built, ["4"])
    assert chosen.structure.representations == built.structure.representations
    x = torch.randn(2, *image.shape[1:], generator=torch.Generator().manual_seed(0))
    for ours, theirs in (
        (chosen.student_forward, built.student_forward),
        (chosen.teacher_forward, built.teacher_forward),
    ):
        first, second = ours.eval()(x), theirs.eval()(x)
        assert torch.equal(first[0], second[0]) and torch.equal(first[1][0], second[1][0])
    # What is inside a block pairs by name, though the activation behind it was replaced.
    inner = with_representations(built, ["4.relu", "4.bn?", "*.conv1"]).structure.representations
    assert len(inner) == 4
    assert {pair.teacher == pair.student for pair in inner} == {True, False}


class _StopError(Exception):
    pass


class _Losses(SilentObserver):
    """Keeps the loss of each step, and ends the training after one of them, as a crash would."""

    def __init__(self, stop_at: int = 0) -> None:
        self.stop_at, self.losses = stop_at, []

    def stepped(self, report: StepReport) -> None:
        self.losses.append(report.loss)
        if report.step == self.stop_at:
            raise _StopError


def test_a_training_that_begins_as_its_teacher_goes_on_bit_for_bit(recipe: Recipe, tmp_path: Path) -> None:
    # Long enough that running statistics are those of a batch.
    longer = dataclasses.replace(recipe, pretrain=dataclasses.replace(TRAIN, epochs=20))
    pretrained = new_pretrain_run(longer, tmp_path / "fp32")
    pretrain_run(pretrained)
    train = dataclasses.replace(TRAIN, epochs=2, lr=1e-4, checkpoint_minutes=0.0)
    logits = DistillOptions(label_weight=0.0, logit_weight=1.0)
    source = dataclasses.replace(
        recipe, model=ModelOptions(str(pretrained.path)), finetune=train, distill=logits
    )
    first = {}
    for structure in (0.0, 0.7):
        estimator = EstimatorOptions(gradual_weights=0.7, gradual_inputs=0.7, gradual_structure=structure)
        wanted = dataclasses.replace(source, estimator=estimator)
        straight = convert_to_run(wanted, tmp_path / f"straight-{structure}").run
        stopped = convert_to_run(wanted, tmp_path / f"stopped-{structure}").run
        whole = _Losses()
        finetune_run(straight, observer=whole)
        # Of six steps four fade.
        with pytest.raises(_StopError):
            finetune_run(stopped, observer=_Losses(stop_at=2))
        finetune_run(stopped)
        ours, theirs = load_file(straight.model_path), load_file(stopped.model_path)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
        first[structure] = whole.losses[0]
    # The statistics of a batch are all that parts it from its teacher at the first step.
    assert first[0.7] < 0.2 * first[0.0]
