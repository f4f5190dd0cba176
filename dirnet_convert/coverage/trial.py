"""The whole way for one network with random weights: convert, one training step, export, compare."""

from __future__ import annotations

import enum
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from dirnet_convert.binarize.layers import BinaryLayer, binary_layers
from dirnet_convert.convert.binarize_network import Binarized, binarize_network
from dirnet_convert.convert.calibrate import calibrate
from dirnet_convert.convert.policy import Decision
from dirnet_convert.convert.trace import REJECTIONS
from dirnet_convert.coverage.operations import is_convolutional
from dirnet_convert.errors import DirnetError
from dirnet_convert.finetune.losses import Objective
from dirnet_convert.finetune.optimizer import build_optimizer
from dirnet_convert.finetune.step import TrainingStep
from dirnet_convert.models.catalog import ModelEntry, find_model
from dirnet_convert.onnx_export.checked import export_checked
from dirnet_convert.recipe import (
    ConvertOptions,
    DistillOptions,
    EstimatorOptions,
    Precision,
    TrainOptions,
)
from dirnet_convert.runtime.session import Kernels

_SIZES = (64, 96, 128)
_USUAL_SIZE = 224
_IMAGES = 4
# Two images show that the batch is free and that images do not mix.
_COMPARED = 2
_NOISE = 0.1
_RATE = 1e-3


class Outcome(enum.StrEnum):
    """How the way ended."""

    OK = "ok"
    NOT_CONVOLUTIONAL = "not convolutional"
    FAILED = "failed"


class Stage(enum.StrEnum):
    """A step of the way."""

    BUILD = "build"
    CONVERT = "convert"
    TRAIN = "train"
    EXPORT = "export"


class Route(enum.StrEnum):
    """What the conversion worked on."""

    GRAPH = "graph"
    MODULE_TREE = "module tree"


@dataclass(frozen=True)
class TrialResult:
    """What came of one network; ``stage`` and ``reason`` say where and why it did not go on.

    ``layers`` are those with weights, ``mac_share`` the binarized share of their multiply-adds, None where
    there is no graph to count them in.
    """

    model: str
    outcome: Outcome
    seed: int
    seconds: float
    image_size: int = 0
    parameters: int = 0
    layers: int = 0
    binary_layers: int = 0
    mac_share: float | None = None
    route: Route | None = None
    error: float | None = None
    stage: Stage | None = None
    reason: str = ""


class _Trial:
    """The network on its way, and what is known of it so far."""

    def __init__(self, model: str, note: Callable[[Stage], None]) -> None:
        self.model = model
        self.seed = seed_of(model)
        self.stage = Stage.BUILD
        self.known: dict[str, object] = {}
        self._note = note

    def _enter(self, stage: Stage) -> None:
        self.stage = stage
        self._note(stage)

    def run(self) -> Outcome:
        self._enter(Stage.BUILD)
        entry = find_model(self.model)
        size, convolutional = self._survey(entry)
        if not convolutional:
            return Outcome.NOT_CONVOLUTIONAL
        torch.manual_seed(self.seed)
        network = entry.build(None).eval()
        enliven(network)
        keep_every_block(network)
        images = torch.randn(_IMAGES if size <= max(_SIZES) else _COMPARED, 3, size, size)
        self._enter(Stage.CONVERT)
        built = binarize_network(network, images[:1], ConvertOptions(), EstimatorOptions())
        del network
        self.known |= _counts(built)
        calibrate(built.student, images, ConvertOptions().threshold)
        self._enter(Stage.TRAIN)
        train_step(built, images)
        self._enter(Stage.EXPORT)
        student = built.student
        # The largest networks leave no room for their teacher beside the comparison.
        del built
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            checked = export_checked(student, images[:_COMPARED], path, engines=tuple(Kernels), threads=1)
        self.known["error"] = max(engine.error for engine in checked.report.engines)
        return Outcome.OK

    def _survey(self, entry: ModelEntry) -> tuple[int, bool]:
        """Return the size of images that the network takes, and whether it is convolutional."""
        try:
            # Without numbers a forward pass costs nothing, and most networks run without.
            with torch.device("meta"):
                return self._look_at(entry.build(None).eval(), entry.image_size)
        except (DirnetError, *REJECTIONS):
            return self._look_at(entry.build(None).eval(), entry.image_size)

    def _look_at(self, network: nn.Module, own_size: int) -> tuple[int, bool]:
        size = accepted_size(network, own_size)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        self.known |= {"image_size": size, "parameters": parameters}
        return size, is_convolutional(network, torch.zeros(1, 3, size, size))


def seed_of(model: str) -> int:
    """Return the seed of everything random in the trial of ``model``: the CRC-32 of its name."""
    return zlib.crc32(model.encode())


def try_network(model: str, note: Callable[[Stage], None]) -> TrialResult:
    """Take ``model`` the whole way with random weights; ``note`` is told each stage as it begins."""
    start = time.perf_counter()
    trial = _Trial(model, note)
    stage, reason = None, ""
    try:
        outcome = trial.run()
    except (DirnetError, MemoryError, OSError, *REJECTIONS) as error:
        outcome, stage = Outcome.FAILED, trial.stage
        kind = "" if isinstance(error, DirnetError) else f"{type(error).__name__}: "
        reason = kind + (str(error).strip().partition("\n")[0] or "no message")
    return TrialResult(
        model=model,
        outcome=outcome,
        seed=trial.seed,
        seconds=round(time.perf_counter() - start, 1),
        stage=stage,
        reason=reason,
        **trial.known,
    )


@torch.no_grad()
def enliven(network: nn.Module) -> None:
    """Add noise to every parameter that is constant: a zero weight or a tiny scale would hide what it
    multiplies."""
    for parameter in network.parameters():
        if parameter.is_floating_point() and parameter.numel() and parameter.min() == parameter.max():
            parameter.add_(_NOISE * torch.randn_like(parameter))


def keep_every_block(network: nn.Module) -> None:
    """Take the chance out of stochastic depth: a block dropped for all images of the only step would get no
    gradient."""
    for module in network.modules():
        if isinstance(module, StochasticDepth):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.drop_prob = 0.0


def accepted_size(network: nn.Module, own_size: int) -> int:
    """Return the smallest edge of images that ``network`` takes, ``own_size`` (0 for unknown) and
    ImageNet's usual one at last.

    Raises:
        DirnetError: it takes none, or does not answer with a tensor.
    """
    sizes = [size for size in dict.fromkeys((*_SIZES, own_size, _USUAL_SIZE)) if size]
    cause = ""
    for size in sizes:
        try:
            with torch.no_grad():
                output = network(torch.zeros(2, 3, size, size))
        except REJECTIONS as error:
            cause = str(error).strip().partition("\n")[0] or type(error).__name__
            continue
        if isinstance(output, Tensor):
            return size
        cause = f"it answers with {type(output).__name__}"
    raise DirnetError(f"The network takes images of none of {sizes} pixels ({cause}).")


def _counts(built: Binarized) -> dict[str, object]:
    chosen = [layer for layer in built.plan if layer.decision is Decision.BINARIZE]
    total = sum(layer.macs for layer in built.plan)
    return {
        "layers": len(built.plan),
        "binary_layers": len(binary_layers(built.student)),
        "mac_share": sum(layer.macs for layer in chosen) / total if total else None,
        "route": Route.MODULE_TREE if built.trace_failure else Route.GRAPH,
    }


def train_step(built: Binarized, images: Tensor) -> None:
    """Train the student one step on ``images`` (N, C, H, W) with its teacher, then put it back into eval
    mode.

    Raises:
        DirnetError: the loss is not finite, or a gradient is not or does not reach the latent weights.
    """
    distill = DistillOptions(logit_weight=1.0, rbd_weight=1.0 if built.structure.representations else 0.0)
    step = TrainingStep(
        built.student_forward, built.teacher_forward.eval(), Objective(distill, 0.0), Precision.FLOAT32
    )
    built.student_forward.train()
    optimizer = build_optimizer(built.student, TrainOptions(optimizer="momentum", momentum=0.0, lr=_RATE))
    loss, _ = step(images, torch.arange(len(images)))
    if not loss.isfinite():
        raise DirnetError(f"The loss of a training step is {loss.item()}.")
    loss.backward()
    _check_gradients(built.student)
    optimizer.step()
    optimizer.zero_grad()
    built.student_forward.eval()


def _check_gradients(student: nn.Module) -> None:
    layers = [(name, m) for name, m in student.named_modules() if isinstance(m, BinaryLayer)]
    for name, layer in layers:
        gradient = layer.weight.grad
        if gradient is None or not gradient.any():
            raise DirnetError(f"No gradient reaches the weights of {name}.")
        if not gradient.isfinite().all():
            raise DirnetError(f"The gradient of the weights of {name} is not finite.")
