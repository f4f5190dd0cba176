"""Builds the binarized detector from a pretrained one: its backbone's graph, and its head where asked."""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.ssd import SSD

from dirnet_convert.convert.binarize_network import Binarized, binarize_network, plan_network
from dirnet_convert.convert.policy import Decision, LayerPlan, describe_layer
from dirnet_convert.convert.rewrite import swap_layers
from dirnet_convert.convert.trace import TraceFailure
from dirnet_convert.errors import UsageError, nearest_name
from dirnet_convert.models.detector_forward import DetectorForward
from dirnet_convert.models.detectors import FeatureForward
from dirnet_convert.modes import evaluating
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions, Head

_BACKBONE = "backbone."
# A feature pyramid lies in torchvision's backbone, but belongs to what makes boxes of feature maps.
_PYRAMID = "backbone.fpn."
_LATERAL = "backbone.fpn.inner_blocks."
_KEPT_LATERAL = "lateral of the feature pyramid: few operations, and its only float path"
_KEPT_HEAD = "head of the detector: it gives classes and boxes"
_ASKED_HEAD = "head of the detector (convert.head)"
_ASK_HEAD = "--set convert.head=binarize"
_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


def binarize_detector(
    detector: SSD | FasterRCNN,
    image: Tensor,
    options: ConvertOptions,
    estimator: EstimatorOptions,
    binarized: tuple[str, ...] | None = None,
) -> Binarized:
    """Binarize a copy of ``detector``; ``binarized`` names the layers where an earlier plan decided.

    ``student`` and ``teacher`` are whole detectors whose ``backbone`` is a graph. ``student_forward`` takes
    images and targets and returns (losses by name, representations); ``teacher_forward`` takes images and
    returns (feature maps, representations).

    Raises:
        UsageError: nothing can be binarized, or a glob matches no layer.
        DirnetError: the backbone does not take an image (1, C, H, W) of this shape.
    """
    wishes = _wishes(detector, options)
    chosen = None if binarized is None else _in_backbone(binarized)
    built = binarize_network(detector.backbone, image, wishes.inside, estimator, chosen)
    head_plan = _plan_head(detector, image, options.head, wishes)
    if binarized is None:
        head = [layer.name for layer in head_plan if layer.decision is Decision.BINARIZE]
    else:
        head = [name for name in binarized if not name.startswith(_BACKBONE)]
    student = _with_backbone(copy.deepcopy(detector), built.student)
    swap_layers(student, head, options, estimator)
    return Binarized(
        student=student,
        teacher=_with_backbone(detector, built.teacher),
        student_forward=DetectorForward(student, built.student_forward),
        teacher_forward=built.teacher_forward,
        plan=(*(_in_detector(layer, wishes) for layer in built.plan), *head_plan),
        structure=built.structure,
        trace_failure=built.trace_failure,
        untraced_modules={_BACKBONE + name: cause for name, cause in built.untraced_modules.items()},
    )


def plan_detector(
    detector: SSD | FasterRCNN, image: Tensor, options: ConvertOptions
) -> tuple[tuple[LayerPlan, ...], fx.GraphModule | TraceFailure]:
    """Decide for each layer of ``detector``; the graph is the backbone's.

    Raises:
        UsageError: a glob matches no layer.
        DirnetError: the backbone does not take an image (1, C, H, W) of this shape.
    """
    wishes = _wishes(detector, options)
    plan, graph = plan_network(detector.backbone, image, wishes.inside)
    head = _plan_head(detector, image, options.head, wishes)
    return (*(_in_detector(layer, wishes) for layer in plan), *head), graph


@dataclass(frozen=True)
class _Wishes:
    """The options by layer: what a person named, the feature pyramid, and what ``inside`` the backbone means.

    ``pyramid`` are its layers that nobody named, ``swapped`` those of them that convert.head binarizes.
    """

    keep: frozenset[str]
    binarize: frozenset[str]
    pyramid: frozenset[str]
    swapped: frozenset[str]
    inside: ConvertOptions


def _wishes(detector: SSD | FasterRCNN, options: ConvertOptions) -> _Wishes:
    names = [name for name, module in detector.named_modules() if isinstance(module, _LAYERS)]
    keep, binarize = _matched(options.keep, names), _matched(options.binarize, names)
    pyramid = frozenset(name for name in names if name.startswith(_PYRAMID)) - keep - binarize
    lateral = frozenset(name for name in pyramid if name.startswith(_LATERAL))
    swapped = pyramid - lateral if options.head is Head.BINARIZE else frozenset()
    inside = dataclasses.replace(
        options,
        keep=_in_backbone(sorted(keep | pyramid - swapped)),
        binarize=_in_backbone(sorted(binarize | swapped)),
    )
    return _Wishes(keep, binarize, pyramid, swapped, inside)


def _with_backbone(detector: SSD | FasterRCNN, backbone: nn.Module) -> SSD | FasterRCNN:
    twin = copy.copy(detector)
    # A shallow copy would share the dictionary of children, too.
    twin._modules = dict(detector._modules)
    twin.backbone = backbone
    return twin


def _matched(globs: tuple[str, ...], names: list[str]) -> frozenset[str]:
    found: set[str] = set()
    for glob in globs:
        matching = fnmatch.filter(names, glob)
        if not matching:
            raise UsageError(
                f"No layer matches '{glob}'{nearest_name(glob, names)}; 'dirnet convert' lists their names."
            )
        found.update(matching)
    return frozenset(found)


def _in_backbone(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.removeprefix(_BACKBONE) for name in names if name.startswith(_BACKBONE))


def _in_detector(layer: LayerPlan, wishes: _Wishes) -> LayerPlan:
    name = f"{_BACKBONE}{layer.name}"
    plan = dataclasses.replace(layer, name=name, remedy=layer.remedy.replace(f"'{layer.name}'", f"'{name}'"))
    if name in wishes.swapped:
        return dataclasses.replace(plan, reason=_ASKED_HEAD, remedy=f"--keep '{name}'")
    if name in wishes.pyramid and name.startswith(_LATERAL):
        return dataclasses.replace(plan, reason=_KEPT_LATERAL, remedy=f"--binarize '{name}'")
    if name in wishes.pyramid:
        return dataclasses.replace(plan, reason=_KEPT_HEAD, remedy=_ASK_HEAD)
    return plan


def _plan_head(detector: SSD | FasterRCNN, image: Tensor, head: Head, wishes: _Wishes) -> list[LayerPlan]:
    macs = _head_macs(detector, image)
    plan = []
    for name, layer in detector.named_modules():
        if not isinstance(layer, _LAYERS) or name.startswith(_BACKBONE):
            continue
        decision, reason, remedy = _decide(name, layer, head, wishes)
        plan.append(
            LayerPlan(
                name=name,
                kind=type(layer).__name__,
                shape=describe_layer(layer),
                weights=layer.weight.numel(),
                macs=macs.get(name, 0),
                decision=decision,
                reason=reason,
                remedy=remedy,
            )
        )
    return plan


def _decide(name: str, layer: nn.Module, head: Head, wishes: _Wishes) -> tuple[Decision, str, str]:
    ask = f"--binarize '{name}'"
    if name in wishes.keep:
        return Decision.KEEP, "asked for with --keep", ""
    if name in wishes.binarize:
        return Decision.BINARIZE, "asked for with --binarize", ""
    if isinstance(layer, nn.Linear):
        return Decision.KEEP, "linear layer: unasked, only convolutions are binarized", ask
    if layer.groups > 1:
        return Decision.KEEP, f"grouped: sums of {layer.weight[0].numel()} signs say too little", ask
    if name.startswith("rpn.head.") and ".conv." not in name:
        return Decision.KEEP, "last layer: it says where objects may be", ask
    if head is Head.KEEP:
        return Decision.KEEP, _KEPT_HEAD, _ASK_HEAD
    return Decision.BINARIZE, _ASKED_HEAD, f"--keep '{name}'"


def _head_macs(detector: SSD | FasterRCNN, image: Tensor) -> dict[str, int]:
    """Return the multiply-adds of the head's layers for one image, as many as it has proposals at most."""
    macs: dict[str, int] = {}

    def count(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            macs[name] = macs.get(name, 0) + layer.weight.numel() * output[0, 0].numel()

        return hook

    handles = [
        layer.register_forward_hook(count(name))
        for name, layer in detector.named_modules()
        if isinstance(layer, nn.Conv2d) and not name.startswith(_BACKBONE)
    ]
    try:
        with evaluating(detector), torch.no_grad():
            FeatureForward(detector)(image)
    finally:
        for handle in handles:
            handle.remove()
    if isinstance(detector, FasterRCNN):
        proposals = detector.rpn._post_nms_top_n["testing"]
        macs |= {
            f"roi_heads.{name}": layer.weight.numel() * proposals
            for name, layer in detector.roi_heads.named_modules()
            if isinstance(layer, nn.Linear)
        }
    return macs
