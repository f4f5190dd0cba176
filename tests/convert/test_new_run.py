"""A conversion writes a whole run or nothing, and the run gives the same networks again."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dirnet_convert.convert import new_run as new_run_module
from dirnet_convert.convert.new_run import ConvertResult, convert_to_run, run_name
from dirnet_convert.convert.rebuild import load_run
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.models import state
from dirnet_convert.models.catalog import find_model
from dirnet_convert.models.state import save_tensors
from dirnet_convert.recipe import ConvertOptions, DataOptions, ModelOptions, Recipe, Shortcut
from dirnet_convert.run import RunFolder, Stage, open_run

pytest.importorskip("sklearn", reason="the digits need scikit-learn")

_FILE = """
from torch import nn
from my_block import block

class Branching(nn.Module):
    def __init__(self, classes):
        super().__init__()
        stem = nn.Conv2d(3, 8, 3, stride=2)
        self.body = nn.Sequential(stem, *block(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        y = self.head(self.body(x))
        return y if y.sum() == 0 else y * 1

def plain(num_classes=10):
    return nn.Sequential(Branching(num_classes).body, nn.Linear(8, num_classes))

def branching(num_classes=10):
    return Branching(num_classes)

def fixed():
    return plain(7)

def pair():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            inner = branching()
            self.body, self.head = inner.body, inner.head
        def forward(self, x):
            return self.head(self.body(x)), 1
    return Pair()
"""
_BLOCK = """
from torch import nn
def block():
    return [nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
"""


@pytest.fixture
def recipe(tmp_path: Path, generator: torch.Generator) -> Recipe:
    """Return a recipe that converts a resnet20 with random weights, on eight images of digits."""
    weights = tmp_path / "w.pth"
    torch.save(find_model("resnet20").build(10).state_dict(), weights)
    return Recipe(
        model=ModelOptions("resnet20", str(weights)),
        data=DataOptions("digits", train_limit=32),
        convert=ConvertOptions(calibration_images=8),
    )


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "net.py").write_text(_FILE)
    (folder / "my_block.py").write_text(_BLOCK)
    return folder / "net.py"


def _own(recipe: Recipe, reference: str) -> Recipe:
    path = Path(recipe.model.weights).with_name("own.pth")
    torch.save(find_model(reference).build(10).state_dict(), path)
    return dataclasses.replace(recipe, model=ModelOptions(reference, str(path)))


def _answers(result: ConvertResult, images: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return {"student": result.network.student(images), "teacher": result.network.teacher(images)}


_ANSWER = """
import sys, torch
from pathlib import Path
from dirnet_convert.convert.rebuild import load_run
from dirnet_convert.run import open_run
images = torch.load(sys.argv[2], weights_only=True)
built = load_run(open_run(Path(sys.argv[1])))
with torch.no_grad():
    torch.save({"student": built.student(images), "teacher": built.teacher(images)}, sys.argv[2])
"""


def test_a_fresh_process_gives_the_same_answers(
    recipe: Recipe, tmp_path: Path, generator: torch.Generator
) -> None:
    result = convert_to_run(recipe)
    images = torch.randn(3, 3, 32, 32, generator=generator)
    torch.save(images, tmp_path / "images.pt")
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run(
        [sys.executable, "-P", "-c", _ANSWER, str(result.run.path), str(tmp_path / "images.pt")],
        check=True,
        env=environment,
    )
    fresh = torch.load(tmp_path / "images.pt", weights_only=True)
    for name, answer in _answers(result, images).items():
        assert torch.equal(answer, fresh[name]), name


def test_the_folder_says_what_was_done(recipe: Recipe) -> None:
    result = convert_to_run(recipe)
    assert open_run(None) == result.run
    config = result.run.read_config()
    assert config == result.config
    assert config.stage is Stage.CONVERTED and config.classes == 10 and len(config.binarized) == 18
    assert config.versions["torch"] == torch.__version__.split("+")[0] or config.versions["torch"]
    plan = json.loads(result.run.plan_path.read_text())
    assert plan["layers"][0]["name"] == "conv1"
    assert {b["name"] for b in plan["input_bits"]} == set(config.binarized)
    assert sorted(p.name for p in result.run.path.iterdir()) == [
        *("model.safetensors", "plan.json", "run.toml", "teacher.safetensors"),
    ]
    assert not result.network.student.training


@pytest.mark.parametrize("options", [{"shortcut": Shortcut.ORIGINAL}, {"keep": ("layer1.*",)}])
def test_a_rebuilt_network_has_the_same_structure(recipe: Recipe, options: dict[str, object]) -> None:
    recipe = dataclasses.replace(recipe, convert=dataclasses.replace(recipe.convert, **options))
    result = convert_to_run(recipe)
    built = load_run(result.run)
    assert built.structure == result.network.structure
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for name, answer in _answers(result, images).items():
            assert torch.equal(answer, getattr(built, name)(images))


@pytest.mark.parametrize("factory", ["plain", "branching"])
def test_a_persons_own_network_is_rebuilt_from_the_runs_copy(
    recipe: Recipe, own_file: Path, factory: str
) -> None:
    result = convert_to_run(_own(recipe, f"{own_file}:{factory}"))
    assert bool(result.network.trace_failure) == (factory == "branching")
    shutil.rmtree(own_file.parent)
    built = load_run(result.run)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for name, answer in _answers(result, images).items():
            assert torch.equal(answer, getattr(built, name)(images))


def test_representations_are_compared_only_where_there_are_some(recipe: Recipe, own_file: Path) -> None:
    def asked(model: str, **weights: float) -> Recipe:
        own = _own(recipe, f"{own_file}:{model}")
        return dataclasses.replace(own, distill=dataclasses.replace(own.distill, **weights))

    def kept(model: str) -> float:
        result = convert_to_run(asked(model, label_weight=0.0, logit_weight=1.0, rbd_weight=2.0))
        return result.run.read_config().recipe.distill.rbd_weight

    assert (kept("plain"), kept("branching")) == (2.0, 0.0)
    with pytest.raises(UsageError, match=r"nothing else is to be learnt from; set distill\.label_weight"):
        convert_to_run(asked("branching", label_weight=0.0, logit_weight=0.0, rbd_weight=2.0))


def test_a_network_of_other_outputs_is_refused(recipe: Recipe, own_file: Path, runs_below_tmp: Path) -> None:
    with pytest.raises(UsageError, match=r"returns \(1, 7\) for one image.*10 classes"):
        convert_to_run(_own(recipe, f"{own_file}:fixed"))
    with pytest.raises(UsageError, match="returns a tuple"):
        convert_to_run(_own(recipe, f"{own_file}:pair"))
    assert not runs_below_tmp.exists()


def test_a_folder_with_something_in_it_is_untouched(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not empty"):
        convert_to_run(recipe, out)
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("failure", [OSError(5, "broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("existed", [True, False])
def test_a_failure_in_the_middle_leaves_nothing(
    recipe: Recipe,
    own_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    existed: bool,
) -> None:
    out = tmp_path / "run"
    if existed:
        out.mkdir()

    def fail(*_: object) -> None:
        assert (out / "model.safetensors").is_file()
        raise failure

    monkeypatch.setattr(new_run_module, "write_atomic", fail)
    with pytest.raises(type(failure)):
        convert_to_run(_own(recipe, f"{own_file}:plain"), out)
    assert out.exists() == existed
    if existed:
        assert not list(out.iterdir())
    monkeypatch.undo()
    assert convert_to_run(recipe, out).run.path == out


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise state.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(state, "save_file", refuse)
    with pytest.raises(DirnetError, match="No space left on device"):
        save_tensors({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def run(recipe: Recipe) -> RunFolder:
    return convert_to_run(recipe).run


def test_missing_and_damaged_files_are_named(run: RunFolder, tmp_path: Path) -> None:
    for number, name in enumerate(("model.safetensors", "teacher.safetensors")):
        missing, damaged, other = (tmp_path / f"{kind}{number}" for kind in ("missing", "damaged", "other"))
        for copy in (missing, damaged, other):
            shutil.copytree(run.path, copy)
        (missing / name).unlink()
        (damaged / name).write_bytes((run.path / name).read_bytes()[:-100])
        save_tensors({"conv9.weight": torch.ones(1)}, other / name)
        for folder, words in ((missing, "is missing"), (damaged, "damaged"), (other, "unknown conv9.weight")):
            with pytest.raises(DirnetError, match=words) as caught:
                load_run(RunFolder(folder))
            assert name in str(caught.value)


def test_other_runs_are_refused(run: RunFolder, recipe: Recipe, tmp_path: Path) -> None:
    config = run.read_config()
    with pytest.raises(UsageError, match="already binarized; go on with 'dirnet finetune"):
        convert_to_run(dataclasses.replace(recipe, model=ModelOptions(str(run.path))))
    run.write_config(dataclasses.replace(config, stage=Stage.PRETRAINED))
    with pytest.raises(UsageError, match="holds an FP32 network; binarize it first: dirnet convert"):
        load_run(run)
    run.write_config(dataclasses.replace(config, format=99))
    with pytest.raises(UsageError, match="newer dirnet"):
        load_run(run)


def test_a_pretrained_run_is_converted(run: RunFolder, recipe: Recipe, tmp_path: Path) -> None:
    config = run.read_config()
    pretrained = RunFolder(tmp_path / "pretrained")
    shutil.copytree(run.path, pretrained.path)
    shutil.copy(run.teacher_path, pretrained.model_path)
    pretrained.write_config(dataclasses.replace(config, stage=Stage.PRETRAINED, binarized=()))
    result = convert_to_run(dataclasses.replace(recipe, model=ModelOptions(str(pretrained.path))))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_run(result.run).teacher(images), load_run(run).teacher(images))
    pretrained.write_config(dataclasses.replace(config, stage=Stage.PRETRAINED, classes=7))
    with pytest.raises(UsageError, match=r"for 7 classes and the data has 10.*dirnet pretrain"):
        convert_to_run(dataclasses.replace(recipe, model=ModelOptions(str(pretrained.path))))


def test_too_few_calibration_images_are_refused(recipe: Recipe) -> None:
    none = dataclasses.replace(recipe, convert=ConvertOptions(calibration_images=0))
    with pytest.raises(UsageError, match="must be at least 1"):
        convert_to_run(none)


def test_tied_tensors_are_written_apart(tmp_path: Path) -> None:
    shared = torch.ones(3)
    save_tensors({"a": shared, "b": shared[1:], "c": shared.view(3, 1).T}, tmp_path / "t.safetensors")
    read = state.read_state(tmp_path / "t.safetensors")
    assert {k: tuple(v.shape) for k, v in read.items()} == {"a": (3,), "b": (2,), "c": (1, 3)}


@pytest.mark.parametrize(
    ("model", "data", "name"),
    [
        ("resnet20", "cifar10", "cifar10-resnet20"),
        ("timm:resnet18.a1_in1k", "folder:/a/my photos/", "my-photos-resnet18.a1_in1k"),
        ("/x/net.py:make", "digits", "digits-make"),
        ("runs/digits-resnet20", "digits", "digits-digits-resnet20"),
    ],
)
def test_runs_are_named_after_data_and_network(model: str, data: str, name: str) -> None:
    assert run_name(Recipe(model=ModelOptions(model), data=DataOptions(data))) == name


@pytest.mark.real_data
def test_the_public_resnet20_converts_with_balanced_bits(real_data_root: Path, recipe: Recipe) -> None:
    weights = real_data_root / "weights" / "cifar10-resnet20-akamaster.th"
    result = convert_to_run(
        dataclasses.replace(
            recipe,
            model=ModelOptions("resnet20", str(weights)),
            data=DataOptions(f"folder:{real_data_root / 'imagenette-128'}", image_size=32),
            convert=ConvertOptions(calibration_images=64),
        )
    )
    assert all(bits.entropy_bits > 0.9 for bits in result.bits), result.bits
