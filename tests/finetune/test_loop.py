"""The loop learns, records, and stops where it must."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.evaluate import evaluate, module_predictor
from dirnet_convert.finetune import step as step_module
from dirnet_convert.finetune.checkpoint import read_checkpoint
from dirnet_convert.finetune.loop import train
from dirnet_convert.finetune.observer import EpochReport, SilentObserver, StepReport
from dirnet_convert.recipe import (
    Attention,
    AugmentKind,
    Distance,
    DistillOptions,
    EstimatorKind,
    EstimatorOptions,
    Precision,
    ScheduleKind,
    TrainOptions,
    WeightClip,
)
from dirnet_convert.run import Stage

PLAIN = DistillOptions(label_weight=1.0, logit_weight=0.0, rbd_weight=0.0)


class _Recorder(SilentObserver):
    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.epochs: list[EpochReport] = []
        self.notes: list[str] = []

    def stepped(self, report: StepReport) -> None:
        self.steps.append(report)

    def finished_epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_learns_and_records(tiny: ModuleType, tmp_path: Path) -> None:
    options = dataclasses.replace(tiny.OPTIONS, epochs=6, ema_decay=0.0, augment=AugmentKind.NONE)
    recorder = _Recorder()
    job = tiny.tiny_job(tmp_path, options=options)
    result = train(job, recorder)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert (
        [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6] == [report.epoch for report in recorder.epochs]
    )
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[-1]["test_top1_percent"] == result.scores["test_top1_percent"] > 50
    assert [report.step for report in recorder.steps] == list(range(1, 6 * tiny.STEPS_PER_EPOCH + 1))
    for row in rows:
        assert row["stage"] == "finetune" and row["images_per_s"] > 0 and row["lr"] >= 0
        weighed = row["label_loss"] + 0.5 * row["logit_loss"] + 0.5 * row["rbd_loss"]
        assert row["train_loss"] == pytest.approx(weighed, rel=1e-5)
        assert [layer["name"] for layer in row["receiving"]] == ["conv1", "conv2"]
        assert all(0 <= layer[kind] <= 1 for layer in row["receiving"] for kind in ("weights", "inputs"))
    assert rows[-1]["t"] == pytest.approx(10.0, rel=0.15)
    assert rows[-1]["receiving"][0]["weights"] < rows[0]["receiving"][0]["weights"]


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_saved_weights_are_the_evaluated_ones(tiny: ModuleType, tmp_path: Path, decay: float) -> None:
    job = tiny.tiny_job(tmp_path, options=dataclasses.replace(tiny.OPTIONS, ema_decay=decay))
    result = train(job)
    fresh = tiny.tiny_job(tmp_path / "other").student
    fresh.load_state_dict(_weights(tmp_path))
    with module_predictor(fresh) as predict:
        assert evaluate(predict, job.data).top1_percent == result.scores["test_top1_percent"]
    same = torch.equal(_weights(tmp_path)["head.weight"], job.student.head.weight.detach())
    assert same == (decay == 0.0)


def test_rbd_of_weight_zero_is_the_same_as_none(tiny: ModuleType, tmp_path: Path) -> None:
    train(tiny.tiny_job(tmp_path / "a", distill=PLAIN))
    train(tiny.tiny_job(tmp_path / "b", distill=PLAIN, teacher_forward=None))
    a, b = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_dte_of_epsilon_zero_trains_as_ede(tiny: ModuleType, tmp_path: Path) -> None:
    kinds = {"a": EstimatorKind.DTE, "b": EstimatorKind.EDE}
    for name, kind in kinds.items():
        estimator = EstimatorOptions(weights=kind, inputs=kind, epsilon=0.0)
        job = tiny.tiny_job(tmp_path / name, estimator=estimator)
        _train_with(job, estimator)
    a, b = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    assert all(torch.equal(a[name], b[name]) for name in a)


def _train_with(job: object, estimator: EstimatorOptions) -> None:
    from dirnet_convert.finetune.schedule import set_estimators

    set_estimators(job.student, estimator)
    train(job)


CHANGES = {
    "optimizer": {"options": {"optimizer": "adamw"}},
    "lr": {"options": {"lr": 0.01}},
    "momentum": {"options": {"momentum": 0.5}},
    "weight_decay": {"options": {"weight_decay": 0.1}},
    "schedule": {"options": {"schedule": ScheduleKind.LINEAR}},
    "warmup_epochs": {"options": {"warmup_epochs": 1.0}},
    "min_lr_ratio": {"options": {"min_lr_ratio": 0.5}},
    "label_smoothing": {"options": {"label_smoothing": 0.2}},
    "augment": {"options": {"augment": AugmentKind.NONE}},
    "clip_grad_norm": {"options": {"clip_grad_norm": 0.01}},
    "ema_decay": {"options": {"ema_decay": 0.5}},
    "holdout": {"options": {"holdout": 0.25}},
    "batch_size": {"options": {"batch_size": 8}},
    "label_weight": {"distill": {"label_weight": 0.0}},
    "logit_weight": {"distill": {"logit_weight": 0.0}},
    "temperature": {"distill": {"temperature": 1.0}},
    "rbd_weight": {"distill": {"rbd_weight": 0.0}},
    "weights": {"estimator": {"weights": EstimatorKind.STE}},
    "inputs": {"estimator": {"inputs": EstimatorKind.POLYNOMIAL}},
    "t_min": {"estimator": {"t_min": 0.5}},
    "t_max": {"estimator": {"t_max": 2.0}},
    "epsilon": {"estimator": {"epsilon": 0.4}},
    "quantile_steps": {"estimator": {"quantile_steps": 1}},
    "gradual_weights": {"estimator": {"gradual_weights": 0.0}},
    "attention": {"distill": {"attention": Attention.MEAN_ABS}},
    "distance": {"distill": {"distance": Distance.COSINE}},
    "reste": {"estimator": {"weights": EstimatorKind.RESTE}},
    "input_t_min": {"estimator": {"input_t_min": 0.5}},
    "input_t_max": {"estimator": {"input_t_max": 2.0}},
    "input_epsilon": {"estimator": {"input_epsilon": 0.4}},
    "inputs_first": {"options": {"inputs_first": 0.4}},
    "image_size": {"options": {"image_size": 12}},
    "small_image_size": {"options": {"small_image_size": 12, "small_first": 0.5}},
    "clip_bound": {"estimator": {"clip": WeightClip.BOUND, "clip_bound": 0.05}},
    "clip_tau": {"estimator": {"clip": WeightClip.QUANTILE}},
    "gradual_inputs": {"estimator": {"gradual_inputs": 0.5}},
    "precision": {"options": {"precision": Precision.BFLOAT16}},
    "seed": {"seed": 6},
}


@pytest.fixture(scope="module")
def unchanged(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("unchanged")
    _train_with(tiny.tiny_job(folder), tiny.ESTIMATOR)
    return _weights(folder)


@pytest.mark.parametrize("name", CHANGES)
def test_every_knob_changes_the_weights(
    tiny: ModuleType, tmp_path: Path, unchanged: dict[str, torch.Tensor], name: str
) -> None:
    base = {"options": tiny.OPTIONS, "distill": tiny.DISTILL, "estimator": tiny.ESTIMATOR}
    changes = {
        field: dataclasses.replace(base[field], **values) if field in base else values
        for field, values in CHANGES[name].items()
    }
    job = tiny.tiny_job(tmp_path, **changes)
    _train_with(job, job.estimator)
    after = _weights(tmp_path)
    assert not all(torch.equal(after[key], unchanged[key]) for key in ("conv1.weight", "head.weight"))


def test_the_least_area_of_random_crops_changes_the_weights(tiny: ModuleType, tmp_path: Path) -> None:
    found = []
    for area in (0.08, 0.9):
        options = dataclasses.replace(
            tiny.OPTIONS, epochs=1, augment=AugmentKind.RANDOM_RESIZED_CROP, crop_area_min=area
        )
        job = tiny.tiny_job(tmp_path / str(area), options=options)
        _train_with(job, job.estimator)
        found.append(_weights(tmp_path / str(area))["conv1.weight"])
    assert not torch.equal(*found)


class _PoisonAt(SilentObserver):
    def __init__(self, network: torch.nn.Module, step: int, parameter: str) -> None:
        self.network, self.step, self.parameter = network, step, parameter

    def stepped(self, report: StepReport) -> None:
        if report.step == self.step:
            self.network.get_parameter(self.parameter).data.fill_(float("nan"))


@pytest.mark.parametrize(
    ("parameter", "minutes"), [("head.weight", 1e9), ("head.weight", 0.0), ("conv1.weight", 1e9)]
)
def test_nan_stops_and_keeps_the_last_checkpoint(
    tiny: ModuleType, tmp_path: Path, parameter: str, minutes: float
) -> None:
    options = dataclasses.replace(tiny.OPTIONS, checkpoint_minutes=minutes)
    job = tiny.tiny_job(tmp_path, options=options)
    with pytest.raises(DirnetError, match=r"diverged at step \d+.*finetune\.lr"):
        train(job, _PoisonAt(job.student, 12, parameter))
    saved = read_checkpoint(job.run)
    assert saved is not None and saved.step in (8, 11)
    assert all(bool(torch.isfinite(value).all()) for value in saved.student.values())
    assert all(bool(torch.isfinite(value).all()) for value in _weights(tmp_path).values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": TrainOptions(epochs=0)}, "epochs"),
        ({"options": TrainOptions(lr=-1.0)}, "lr"),
        ({"options": TrainOptions(batch_size=0)}, "batch_size"),
        ({"options": TrainOptions(batch_size=4096, compile=False)}, "fewer than a batch"),
        ({"distill": DistillOptions(label_weight=0.0)}, "label_weight"),
        ({"distill": DistillOptions(temperature=0.0)}, "temperature"),
        ({"distill": DistillOptions(rbd_weight=1.0), "teacher_forward": None}, "no teacher"),
        ({"estimator": EstimatorOptions(t_min=0.0)}, "t_min"),
        ({"estimator": EstimatorOptions(epsilon=1.0)}, "epsilon"),
    ],
)
def test_impossible_options_are_refused(
    tiny: ModuleType, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(tiny.tiny_job(tmp_path, **change))


def test_trains_a_network_without_teacher_or_binary_layers(tiny: ModuleType, tmp_path: Path) -> None:
    network = tiny.TinyNetwork(binary=False)
    job = tiny.tiny_job(
        tmp_path,
        stage=Stage.PRETRAINED,
        student=network,
        student_forward=network,
        teacher_forward=None,
        distill=PLAIN,
        estimator=None,
    )
    recorder = _Recorder()
    train(job, recorder)
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert recorder.notes == []
    assert row["stage"] == "pretrain" and row["t"] is None and row["rbd_loss"] == 0


def test_without_a_compiler_training_goes_on_and_says_so(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_module, "has_compiler", lambda: False)
    recorder = _Recorder()
    options = dataclasses.replace(tiny.OPTIONS, compile=True)
    train(tiny.tiny_job(tmp_path / "a", options=options), recorder)
    assert len(recorder.notes) == 2 and "compiler" in recorder.notes[0]
    assert "over the first 30 % of the training" in recorder.notes[1]
    train(tiny.tiny_job(tmp_path / "b"))
    a, b = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("good_calls", [0, 9])
def test_failing_compiler_falls_back(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good_calls: int
) -> None:
    """At the first step, and at a later one, which is compiled again when fading ends."""

    def failing(step: Callable[..., object], **options: object) -> object:
        calls = []

        def call(*arguments: object) -> object:
            calls.append(1)
            if len(calls) > good_calls:
                raise step_module.CppCompileError(["c++"], "no headers")
            return step(*arguments)

        return call

    monkeypatch.setattr(step_module, "has_compiler", lambda: True)
    monkeypatch.setattr(torch, "compile", failing)
    recorder = _Recorder()
    train(tiny.tiny_job(tmp_path, options=dataclasses.replace(tiny.OPTIONS, compile=True)), recorder)
    assert "cannot be compiled" in recorder.notes[-1]
    assert len(recorder.epochs) == 3


class _Overflow(torch.nn.Module):
    """Multiplies by what becomes infinite at one call while training, in its value or in its gradient."""

    def __init__(self, call: int, *, backward: bool = False) -> None:
        super().__init__()
        self.calls, self.call, self.backward_too = 0, call, backward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        if self.calls < self.call or not self.training:
            return x
        if not self.backward_too:
            return x * float("inf")
        if x.requires_grad:
            x.register_hook(lambda gradient: gradient * float("inf"))
        return x.clone()


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_nan_in_the_loss_names_step_and_layer(tiny: ModuleType, tmp_path: Path, compiled: bool) -> None:
    job = tiny.tiny_job(
        tmp_path, options=dataclasses.replace(tiny.OPTIONS, compile=compiled, checkpoint_minutes=1e9)
    )
    poison = _PoisonAt(job.student, 12, "bn2.weight")
    with pytest.raises(
        DirnetError, match=r"diverged at step 13: the loss is nan, first in the output of layer 'bn2'"
    ) as raised:
        train(job, poison)
    assert "The checkpoint of step 8 is kept; go on from it with a lower rate" in str(raised.value)
    assert raised.value.exit_code == 1


def test_nan_between_layers_names_the_layer_that_it_reaches(tiny: ModuleType, tmp_path: Path) -> None:
    job = tiny.tiny_job(tmp_path, distill=PLAIN)
    job.student.activation = _Overflow(call=2 * 3 + 1)
    with pytest.raises(DirnetError, match=r"step 4: the loss is nan, first in the output of layer 'activa"):
        train(job)


@pytest.mark.parametrize("clip", [0.0, 5.0])
def test_nan_in_a_gradient_names_step_and_parameter(tiny: ModuleType, tmp_path: Path, clip: float) -> None:
    options = dataclasses.replace(tiny.OPTIONS, clip_grad_norm=clip)
    job = tiny.tiny_job(tmp_path, distill=PLAIN, options=options)
    job.student.dropout = _Overflow(call=6, backward=True)
    # The head lies behind the broken gradient, the second normalization right in front of it.
    with pytest.raises(DirnetError, match=r"diverged at step 6: the gradient of 'bn2\.bias' is not finite"):
        train(job)
    saved = read_checkpoint(job.run)
    assert saved is not None and saved.step == 5
    assert all(bool(torch.isfinite(value).all()) for value in saved.student.values())


def test_broken_images_are_named(tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = tiny.tiny_job(tmp_path)
    monkeypatch.setattr(job.data, "_std", torch.full((1, 3, 1, 1), float("nan")))
    with pytest.raises(DirnetError, match=r"step 1: the loss is nan, first in the images\. The weights that"):
        train(job)


def test_diverged_training_goes_on_with_a_lower_rate_from_its_checkpoint(
    tiny: ModuleType, tmp_path: Path
) -> None:
    job = tiny.tiny_job(tmp_path)
    with pytest.raises(DirnetError, match="diverged"):
        train(job, _PoisonAt(job.student, 12, "head.weight"))
    with pytest.raises(UsageError, match=r"finetune\.momentum"):
        train(tiny.tiny_job(tmp_path, options=dataclasses.replace(tiny.OPTIONS, momentum=0.5)))
    recorder = _Recorder()
    train(tiny.tiny_job(tmp_path, options=dataclasses.replace(tiny.OPTIONS, lr=0.0125)), recorder)
    assert recorder.steps[0].step == 12
    # At the third epoch's last step the schedule is the same part of another rate.
    untroubled = _Recorder()
    train(tiny.tiny_job(tmp_path / "other"), untroubled)
    assert recorder.epochs[-1].lr == pytest.approx(untroubled.epochs[-1].lr / 4)
    # What went well is bound to its options again.
    with pytest.raises(UsageError, match=r"finetune\.lr = 0\.0125, not 0\.05"):
        train(tiny.tiny_job(tmp_path, options=dataclasses.replace(tiny.OPTIONS, epochs=4)))


def test_held_out_images_choose_the_weights(tiny: ModuleType, tmp_path: Path) -> None:
    options = dataclasses.replace(tiny.OPTIONS, epochs=5, lr=0.5, holdout=0.25, warmup_epochs=0.0)
    job = tiny.tiny_job(tmp_path, options=options)
    recorder = _Recorder()
    result = train(job, recorder)
    # A quarter of 8 batches is held out, so 6 are left.
    assert [report.step for report in recorder.epochs] == [6, 12, 18, 24, 30]
    held = [report.held_out["holdout_top1_percent"] for report in recorder.epochs]
    assert result.kept_epoch == held.index(max(held)) + 1
    assert result.scores == recorder.epochs[result.kept_epoch - 1].scores
    fresh = tiny.tiny_job(tmp_path / "other").student
    fresh.load_state_dict(_weights(tmp_path))
    rest, chosen = job.data.hold_out(0.25, job.seed)
    assert rest.train_size == 96 and chosen.test_size == 32
    with module_predictor(fresh) as predict:
        assert evaluate(predict, chosen).top1_percent == max(held)
        assert evaluate(predict, job.data).top1_percent == result.scores["test_top1_percent"]
    again = train(tiny.tiny_job(tmp_path, options=options))
    assert again.already_finished and again.scores == result.scores


def test_without_held_out_images_the_last_epoch_stays(tiny: ModuleType, tmp_path: Path) -> None:
    recorder = _Recorder()
    result = train(tiny.tiny_job(tmp_path), recorder)
    assert result.kept_epoch == result.epochs == 3
    assert all(report.held_out == {} for report in recorder.epochs)
    assert "holdout" not in (tmp_path / "metrics.jsonl").read_text()
