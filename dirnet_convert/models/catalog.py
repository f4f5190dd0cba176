"""Where FP32 networks come from: torchvision, timm, our own, and a person's own file."""

from __future__ import annotations

import enum
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import torchvision
from timm.data import resolve_data_config
from torch import nn

from dirnet_convert.errors import DirnetError, UsageError, nearest_name
from dirnet_convert.models import cifar_resnet, darts, vgg_small
from dirnet_convert.models.detector_weights import adapt_state
from dirnet_convert.models.detectors import (
    COCO_CLASSES,
    build_detector,
    detector_input,
    detector_names,
    other_detector_names,
    published_rows,
    published_weights,
)
from dirnet_convert.models.state import Fit, load_weights, read_state, unprefixed
from dirnet_convert.models.user_file import UserFactory, load_user_factory
from dirnet_convert.quiet import errors_alone
from dirnet_convert.recipe import Task

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_CLASSES = 1000

_OWN: dict[str, Callable[..., nn.Module]] = {
    "resnet20": cifar_resnet.resnet20,
    "resnet32": cifar_resnet.resnet32,
    "resnet44": cifar_resnet.resnet44,
    "resnet56": cifar_resnet.resnet56,
    "cifar_resnet18": cifar_resnet.cifar_resnet18,
    "vgg_small": vgg_small.vgg_small,
    "darts_cifar": darts.darts_cifar,
    "darts_imagenet": darts.darts_imagenet,
}
_OWN_IMAGE_SIZE = 32
_OWN_IMAGE_SIZES = {"darts_imagenet": 224}


# The networks of torchvision with auxiliary classifiers, and what the names of these begin with.
_INCEPTIONS = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}


class Origin(enum.Enum):
    """Which library a network comes from."""

    OWN = "own"
    TORCHVISION = "torchvision"
    TIMM = "timm"
    FILE = "file"


@dataclass(frozen=True)
class ModelEntry:
    """A network that can be built: its factory and the input that its weights were trained on.

    An empty ``mean`` and ``std`` are those of the data set, as in trainings from random weights.
    ``classes`` is the number of classes that its published weights tell apart, 0 where it has none.
    """

    name: str
    origin: Origin
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int
    user: UserFactory | None = None
    task: Task = Task.CLASSIFICATION

    def build(self, classes: int | None) -> nn.Module:
        """Build the network with random weights; ``classes`` None means the network's own number.

        A detector tells the background from that many classes of objects.
        """
        if self.task is Task.DETECTION:
            return build_detector(self.name, classes or self.classes or COCO_CLASSES)
        keywords = {} if classes is None else {"num_classes": classes}
        if self.origin is Origin.OWN:
            return _OWN[self.name](**keywords)
        if self.origin is Origin.TORCHVISION:
            return torchvision.models.get_model(
                self.name, weights=None, **_inception_options(self.name), **keywords
            )
        if self.origin is Origin.TIMM:
            return timm.create_model(self.name.removeprefix("timm:"), pretrained=False, **keywords)
        assert self.user is not None
        return self.user(classes)


def _inception_options(name: str) -> dict[str, bool]:
    # torchvision builds these two otherwise without weights than with them: auxiliary classifiers, and an
    # input that is not normalized again. They are always built as for their weights, so that weights and
    # network fit.
    if name not in _INCEPTIONS:
        return {}
    return {"init_weights": True, "transform_input": True, "aux_logits": False}


def _fitted(entry: ModelEntry, network: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return ``state`` as ``network`` names its tensors."""
    state = unprefixed(state, network.state_dict())
    if entry.task is Task.DETECTION:
        return adapt_state(entry.name, network, state)
    # The published files hold the auxiliary classifiers, which only serve training.
    prefixes = _INCEPTIONS.get(entry.name, ()) if entry.origin is Origin.TORCHVISION else ()
    return (
        {name: value for name, value in state.items() if not name.startswith(prefixes)} if prefixes else state
    )


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classification networks."""
    return torchvision.models.list_models(module=torchvision.models)


def own_names() -> list[str]:
    """Return the names of the networks that only this project has."""
    return sorted(_OWN)


def find_model(name: str) -> ModelEntry:
    """Look a MODEL up: a torchvision name, ``timm:NAME``, one of our own, or ``file.py:factory``.

    Raises:
        UsageError: there is no such network; the sentence has the nearest name.
    """
    if ".py:" in name:
        return ModelEntry(name, Origin.FILE, 0, (), (), 0, load_user_factory(name))
    if name in _OWN:
        size = _OWN_IMAGE_SIZES.get(name, _OWN_IMAGE_SIZE)
        return ModelEntry(name, Origin.OWN, size, (), (), 0)
    if name.startswith("timm:"):
        return _find_timm(name)
    if name in detector_names():
        return _find_detector(name)
    known = torchvision_names()
    if name in other_detector_names():
        raise UsageError(
            f"{name} is a detector of a kind that is not supported; {', '.join(detector_names())} are."
        )
    if name not in known:
        if timm.is_model(name):
            raise UsageError(f"torchvision has no network '{name}', but timm has: name it 'timm:{name}'.")
        raise UsageError(
            f"No network '{name}'{nearest_name(name, [*known, *_OWN, *detector_names()])}; a MODEL is a "
            f"torchvision name, timm:NAME, one of {', '.join(own_names())}, or path/to/file.py:factory."
        )
    weights = _default_weights(name)
    if weights is None:
        return ModelEntry(name, Origin.TORCHVISION, 224, IMAGENET_MEAN, IMAGENET_STD, 0)
    preset = weights.transforms()
    return ModelEntry(
        name,
        Origin.TORCHVISION,
        preset.crop_size[0],
        tuple(preset.mean),
        tuple(preset.std),
        len(weights.meta["categories"]),
    )


def _find_detector(name: str) -> ModelEntry:
    wanted = detector_input(name)
    # The background is no class.
    classes = max(0, len(published_rows(name)) - 1)
    return ModelEntry(
        name,
        Origin.TORCHVISION,
        wanted.image_size,
        wanted.mean,
        wanted.std,
        classes,
        task=Task.DETECTION,
    )


def _default_weights(name: str) -> torchvision.models.WeightsEnum | None:
    weights = torchvision.models.get_model_weights(name)
    return weights.DEFAULT if len(weights) else None


def _find_timm(name: str) -> ModelEntry:
    short = name.removeprefix("timm:")
    if not timm.is_model(short.split(".")[0]):
        known = timm.list_models()
        raise UsageError(f"timm has no network '{short}'{nearest_name(short, known)}.")
    architecture, _, tag = short.partition(".")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        listed = f"it has {', '.join(tags)}" if tags else "it has none"
        raise UsageError(f"timm has no weights '{tag}' of {architecture}{nearest_name(tag, tags)}; {listed}.")
    pretrained = timm.models.get_pretrained_cfg(short)
    if pretrained is None:
        return ModelEntry(name, Origin.TIMM, 224, IMAGENET_MEAN, IMAGENET_STD, 0)
    config = resolve_data_config(pretrained_cfg=pretrained.to_dict())
    classes = pretrained.num_classes if pretrained.has_weights else 0
    return ModelEntry(name, Origin.TIMM, config["input_size"][-1], config["mean"], config["std"], classes)


def load_pretrained(entry: ModelEntry, weights: str, classes: int) -> nn.Module:
    """Build a network whose every weight is pretrained, for ``convert``.

    Raises:
        DirnetError: there are no weights, they are for another number of classes, or they do not fit.
    """
    hint = f"'dirnet pretrain {entry.name} --data DATA' makes them"
    if weights == "none":
        raise UsageError(f"convert needs a pretrained network, and --weights is 'none'; {hint}.")
    if weights == "default":
        if not entry.classes:
            raise UsageError(
                f"There are no published weights for {entry.name}; name a file with --weights, or {hint}."
            )
        if entry.classes != classes:
            raise UsageError(
                f"The published weights of {entry.name} are for {entry.classes} classes and the data has "
                f"{classes}; {hint}."
            )
        return _download(entry, classes)
    network = entry.build(classes)
    state = _fitted(entry, network, read_state(Path(weights)))
    head = _head_mismatch(network, state, classes)
    if head:
        raise UsageError(
            f"The weights in {weights} are for {head} classes and the data has {classes}; {hint}."
        )
    load_weights(network, state, Fit.EXACT, weights)
    return network


def load_for_training(entry: ModelEntry, weights: str, classes: int) -> tuple[nn.Module, list[str]]:
    """Build a network for ``pretrain`` and return it with the names of the tensors that start at random."""
    network = entry.build(classes)
    if weights == "none" or (weights == "default" and not entry.classes):
        return network, list(network.state_dict())
    if weights == "default":
        state = _download(entry, entry.classes).state_dict()
    else:
        state = _fitted(entry, network, read_state(Path(weights)))
    return network, load_weights(
        network, state, Fit.NEW_LAYERS, weights if weights != "default" else entry.name
    )


def _head_mismatch(network: nn.Module, state: dict[str, torch.Tensor], classes: int) -> int:
    """Return the number of classes of ``state`` where it differs from the network's in the classifier
    alone."""
    own = network.state_dict()
    differing = {k for k in own if k in state and own[k].shape != state[k].shape}
    if not differing or any(own[k].shape[:1] != (classes,) or not state[k].ndim for k in differing):
        return 0
    return state[min(differing)].shape[0]


def _download(entry: ModelEntry, classes: int) -> nn.Module:
    try:
        if entry.task is Task.DETECTION:
            network = build_detector(entry.name, classes)
            state = published_weights(entry.name).get_state_dict(progress=True, check_hash=True)
            load_weights(network, adapt_state(entry.name, network, state), Fit.EXACT, entry.name)
            return network
        if entry.origin is Origin.TIMM:
            # The hub's client logs each attempt that fails; the last one is raised, and told.
            with errors_alone("huggingface_hub"):
                return timm.create_model(entry.name.removeprefix("timm:"), pretrained=True)
        return torchvision.models.get_model(entry.name, weights=_default_weights(entry.name))
    # timm's hub client raises subclasses of OSError and RuntimeError; urllib raises URLError, an OSError.
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DirnetError(
            f"The weights of {entry.name} could not be downloaded ({cause}). Without a connection, save "
            "them as a file elsewhere and name it with --weights; --weights none begins with random ones."
        ) from error
