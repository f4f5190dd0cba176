"""Weights for detectors from files: whole detectors', for all or some of their classes, or a backbone's."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from dirnet_convert.models.detectors import published_rows, published_weights

# torchvision cuts its classification networks in two here: before the fourth pooling of VGG-16, and inside
# the block of MobileNetV3 that makes the first feature map.
_VGG_CUT = 23
_MOBILENET_CUT = 13
# torchvision publishes these with frozen batch norms whose epsilon is 0; ours have PyTorch's default.
_WITHOUT_EPSILON = "fasterrcnn_resnet50_fpn"
_EPSILON = 1e-5


def adapt_state(name: str, network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` with the names and shapes of the detector ``network``.

    A classification network's weights get the names that they have in the backbone; of published weights
    those outputs are left out that stand for no class. What fits neither is returned as it is.
    """
    if not any(key.startswith("backbone.") for key in state):
        return _backbone_names(name, state)
    rows = published_rows(name)
    weights = published_weights(name)
    published = len(weights.meta["categories"]) if weights is not None else 0
    own = network.state_dict()
    adapted = {key: _chosen(key, value, own.get(key), rows, published) for key, value in state.items()}
    frozen = not any(key.endswith("num_batches_tracked") for key in state)
    if name == _WITHOUT_EPSILON and frozen and _is_published(state, published):
        for key, value in adapted.items():
            if key.endswith("running_var"):
                adapted[key] = (value - _EPSILON).clamp(min=0.0)
    return adapted


def _is_published(state: Mapping[str, Tensor], published: int) -> bool:
    scores = state.get("roi_heads.box_predictor.cls_score.bias")
    return scores is not None and len(scores) == published


def _chosen(key: str, value: Tensor, own: Tensor | None, rows: list[int], published: int) -> Tensor:
    """Return the rows of the real classes where ``value`` has one for each published output."""
    if own is None or own.shape == value.shape or own.shape[1:] != value.shape[1:] or not value.ndim:
        return value
    per_class, rest = divmod(len(value), published or len(value) + 1)
    if rest or per_class * len(rows) != len(own):
        return value
    if key.startswith("roi_heads.box_predictor.bbox_pred"):
        # One box of four numbers for each class; an SSD has the classes within each anchor instead.
        return value.unflatten(0, (published, per_class))[rows].flatten(0, 1)
    return value.unflatten(0, (per_class, published))[:, rows].flatten(0, 1)


def _backbone_names(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if name.startswith("ssd300_vgg16") and parts[0] == "features":
            renamed[_vgg_name(int(parts[1]), parts[2:])] = value
        elif name.startswith("ssdlite320_mobilenet") and parts[0] == "features":
            renamed[_mobilenet_name(int(parts[1]), parts[2:])] = value
        elif name.startswith("fasterrcnn"):
            parts = parts[1:] if parts[0] == "features" else parts
            renamed[".".join(["backbone.body", *parts])] = value
        else:
            renamed[key] = value
    return renamed


def _vgg_name(number: int, rest: list[str]) -> str:
    part = f"features.{number}" if number < _VGG_CUT else f"extra.0.{number - _VGG_CUT}"
    return ".".join(["backbone", part, *rest])


def _mobilenet_name(number: int, rest: list[str]) -> str:
    if number < _MOBILENET_CUT:
        return ".".join(["backbone.features.0", str(number), *rest])
    if number > _MOBILENET_CUT:
        return ".".join(["backbone.features.1", str(number - _MOBILENET_CUT), *rest])
    # rest is ("block", place, ...), and places keep their numbers behind the cut.
    part = f"features.0.{_MOBILENET_CUT}" if rest[1] == "0" else f"features.1.0.{rest[1]}"
    return ".".join(["backbone", part, *rest[2:]])
