"""The families of networks go the whole way: convert, a few training steps, export, verified on both routes.

Weights are random and images few: what is tested is what happens to each network, not how good it becomes.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dirnet_convert import api
from dirnet_convert.binarize.layers import BinaryConv2d
from dirnet_convert.convert.policy import Decision
from dirnet_convert.convert.rebuild import load_run
from dirnet_convert.models.catalog import find_model
from dirnet_convert.recipe import load_recipe, recipe_names
from dirnet_convert.recipe_choice import RecipeChanges, choose_recipe
from dirnet_convert.runtime.session import Kernels

SEED = 7
CLASSES = 10


# VGG's linear layers have 124 million weights, which stay in float and would take gigabytes and minutes.
_VGG = """
from torch import nn
from torchvision.models import {0}

def build(num_classes):
    network = {0}(num_classes=num_classes)
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    network.classifier[0] = nn.Linear(512, 64)
    network.classifier[3] = nn.Linear(64, 64)
    network.classifier[6] = nn.Linear(64, num_classes)
    return network
"""
# The cells repeat; four of them are every kind that there is, behind every kind.
_DARTS = """
from dirnet_convert.models.darts import {0}

def build(num_classes):
    return {0}(num_classes, cells=4, channels=16)
"""


@dataclass(frozen=True)
class Family:
    """A network and what conversion must make of it; ``kept`` counts the kept layers by a word of the reason.

    ``short`` is a file that builds a smaller network of the same layers, where the whole one takes minutes.
    """

    model: str
    recipe: str
    edge: int
    binary: int
    kept: dict[str, int]
    shortcuts: int
    norms: int = 0
    untouched: tuple[type[nn.Module], ...] = ()
    short: str = ""

    def reference(self, folder: Path) -> str:
        """Return the MODEL to convert: the network, or a file below ``folder`` that builds ``short``."""
        if not self.short:
            return self.model
        path = folder / "short.py"
        path.write_text(self.short)
        return f"{path}:build"


_FIRST = {"first": 1}
FAMILIES = (
    Family("resnet18", "imagenet-resnet18", 32, 16, {**_FIRST, "linear": 1, "downsample": 3}, 8),
    Family("resnet34", "imagenet-resnet34", 32, 32, {**_FIRST, "linear": 1, "downsample": 3}, 16),
    Family("resnet50", "imagenet-resnet50", 32, 48, {**_FIRST, "linear": 1, "downsample": 4}, 14),
    Family("cifar_resnet18", "cifar10-resnet18", 32, 16, {**_FIRST, "linear": 1, "downsample": 3}, 8),
    Family("vgg_small", "cifar10-vgg_small", 32, 5, {**_FIRST, "linear": 1}, 0),
    Family(
        "vgg16", "imagenet-vgg16", 32, 12, {**_FIRST, "linear": 3}, 0, norms=12, short=_VGG.format("vgg16")
    ),
    Family(
        "vgg16_bn", "imagenet-vgg16_bn", 32, 12, {**_FIRST, "linear": 3}, 0, short=_VGG.format("vgg16_bn")
    ),
    Family(
        "timm:mobilenetv1_100",
        "imagenet-mobilenetv1_100",
        32,
        13,
        {**_FIRST, "linear": 1, "depthwise": 13},
        0,
    ),
    Family("mobilenet_v2", "imagenet-mobilenet_v2", 32, 34, {**_FIRST, "linear": 1, "depthwise": 17}, 0),
    Family(
        "mobilenet_v3_large",
        "imagenet-mobilenet_v3_large",
        64,
        30,
        {**_FIRST, "linear": 2, "depthwise": 15, "gate": 16},
        0,
        untouched=(nn.Hardswish, nn.Hardsigmoid),
    ),
    Family(
        "mobilenet_v3_small",
        "imagenet-mobilenet_v3_small",
        64,
        22,
        {**_FIRST, "linear": 2, "depthwise": 11, "gate": 18},
        0,
        untouched=(nn.Hardswish, nn.Hardsigmoid),
    ),
    Family(
        "efficientnet_b0",
        "imagenet-efficientnet_b0",
        64,
        32,
        {**_FIRST, "linear": 1, "depthwise": 16, "gate": 32},
        0,
        untouched=(nn.SiLU, nn.Sigmoid),
    ),
    Family(
        "darts_cifar",
        "cifar10-darts_cifar",
        16,
        32,
        {**_FIRST, "linear": 1, "depthwise": 22},
        0,
        short=_DARTS.format("DartsCifar"),
    ),
    Family(
        "darts_imagenet",
        "imagenet-darts_imagenet",
        32,
        35,
        {**_FIRST, "linear": 1, "depthwise": 22},
        0,
        short=_DARTS.format("DartsImageNet"),
    ),
)


def random_weights(model: str, edge: int, path: Path) -> Path:
    """Write the network with random weights and, for its batch norms, the statistics of noise."""
    print(f"seed {SEED}")
    torch.manual_seed(SEED)
    network = find_model(model).build(CLASSES).train()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None
    with torch.no_grad():
        network(torch.randn(4, 3, edge, edge))
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return path


def kept_reasons(layers: tuple[object, ...]) -> Counter[str]:
    words = ("first", "linear", "downsample", "depthwise", "gate")
    reasons = [p.reason for p in layers if p.decision is Decision.KEEP]
    return Counter(next((word for word in words if word in reason), reason) for reason in reasons)


def count(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Counter[str]:
    return Counter(type(m).__name__ for m in network.modules() if type(m) in kinds)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model)
def test_a_network_of_the_family_goes_the_whole_way(family: Family, tmp_path: Path) -> None:
    model = family.reference(tmp_path)
    converted = api.convert(
        model,
        "digits",
        recipe=family.recipe,
        weights=str(random_weights(model, family.edge, tmp_path / "w.safetensors")),
        overrides=[
            f"data.image_size={family.edge}",
            "convert.calibration_images=16",
            "data.train_limit=16",
            "data.test_limit=8",
            "finetune.epochs=1",
            "finetune.batch_size=8",
            "finetune.warmup_epochs=0",
            "finetune.augment=none",
            "finetune.compile=false",
        ],
        out=tmp_path / "run",
    )
    built = converted.network
    assert built.trace_failure == ""
    binary = {name: m for name, m in built.student.named_modules() if isinstance(m, BinaryConv2d)}
    assert len(binary) == family.binary
    assert kept_reasons(built.plan) == family.kept
    # What is asked for stays: gates and smooth activations are those of the original.
    assert count(built.student, family.untouched) == count(built.teacher, family.untouched)
    assert len(built.structure.shortcuts) == family.shortcuts
    assert len(built.structure.norms) == family.norms

    before = {name: layer.weight.detach().clone() for name, layer in binary.items()}
    result = api.finetune(converted.run)
    assert result.epochs == 1
    after = load_run(converted.run).student
    moved = [
        name for name, weight in before.items() if not torch.equal(weight, after.get_submodule(name).weight)
    ]
    assert len(moved) == family.binary
    line = json.loads(converted.run.metrics_path.read_text().splitlines()[-1])
    assert math.isfinite(line["train_loss"])

    exported = api.export_onnx(converted.run, images=2)
    assert {engine.kernels for engine in exported.report.engines} == {Kernels.STOCK, Kernels.DIRNET}
    assert len(exported.result.binary_nodes) == family.binary
    nodes = Counter(node.op_type for node in onnx.load(converted.run.onnx_path).graph.node if node.domain)
    assert sum(n for kind, n in nodes.items() if kind.startswith("BinaryConv2d")) == family.binary


def test_every_family_has_a_recipe_for_its_own_network() -> None:
    assert {family.recipe for family in FAMILIES} <= set(recipe_names())
    for family in FAMILIES:
        recipe = load_recipe(family.recipe)
        assert recipe.model.name == family.model
        _, chosen = choose_recipe(family.model, recipe.data.name, None, RecipeChanges())
        assert chosen == family.recipe
        assert all("was not run" in e.source for e in recipe.expected if e.stage == "finetune")
