"""Detectors: how they are found and built, what their input is, and which weights fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.models.catalog import find_model, load_for_training, load_pretrained
from dirnet_convert.models.detector_weights import adapt_state
from dirnet_convert.models.detectors import PreparedInput, build_detector, detector_names, published_rows
from dirnet_convert.models.state import Fit, load_weights, save_tensors
from dirnet_convert.recipe import Task

SSDLITE = "ssdlite320_mobilenet_v3_large"
RESNET18 = "fasterrcnn_resnet18_fpn"


def test_the_four_are_found_with_their_input() -> None:
    assert {"ssd300_vgg16", SSDLITE, "fasterrcnn_resnet50_fpn", RESNET18} <= set(detector_names())
    entry = find_model(SSDLITE)
    assert entry.task is Task.DETECTION and entry.image_size == 320 and entry.mean == (0.5, 0.5, 0.5)
    # 91 published outputs are the background, 80 classes and ten numbers that stand for nothing.
    assert entry.classes == 80 and len(published_rows(SSDLITE)) == 81
    assert find_model(RESNET18).classes == 0
    assert find_model("resnet18").task is Task.CLASSIFICATION


def test_other_detectors_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"retinanet_resnet50_fpn is a detector of a kind .*ssd300_vgg16"):
        find_model("retinanet_resnet50_fpn")
    with pytest.raises(UsageError, match="did you mean 'fasterrcnn_resnet18_fpn'"):
        find_model("fasterrcnn_resnet18_fp")


@pytest.mark.parametrize("name", [SSDLITE, RESNET18])
def test_what_goes_in_is_not_changed(name: str, generator: torch.Generator) -> None:
    detector = build_detector(name, 2)
    images = torch.randn(2, 3, 72, 72, generator=generator)
    targets = [{"boxes": torch.tensor([[1.0, 2.0, 30.0, 40.0]]), "labels": torch.tensor([1])}] * 2
    assert isinstance(detector.transform, PreparedInput)
    for given in (images, list(images)):
        passed, boxes = detector.transform(given, targets)
        assert torch.equal(passed.tensors, images) and passed.image_sizes == [(72, 72)] * 2
        assert boxes is targets
    found = [{"boxes": torch.tensor([[1.0, 2.0, 3.0, 4.0]])}]
    assert detector.transform.postprocess(found, [(72, 72)], [(500, 400)]) is found


def test_passing_on_is_what_torchvision_does_with_prepared_images(generator: torch.Generator) -> None:
    """The place where torchvision resizes and normalizes changes nothing where mean, std and size are met."""
    torch.manual_seed(4)
    theirs = torchvision.models.get_model(SSDLITE, weights=None, weights_backbone=None, num_classes=3).eval()
    ours = build_detector(SSDLITE, 2).eval()
    ours.load_state_dict(theirs.state_dict())
    pixels = torch.rand(2, 3, 320, 320, generator=generator)
    with torch.no_grad():
        expected = theirs(list(pixels))
        found = ours((pixels - 0.5) / 0.5)
    for left, right in zip(found, expected, strict=True):
        assert all(torch.allclose(left[key], right[key], atol=1e-4) for key in ("boxes", "scores"))
        assert torch.equal(left["labels"], right["labels"])


def _parameters(detector: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in detector.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "classifier", "options", "allowed"),
    [
        (
            "ssd300_vgg16",
            "vgg16",
            {},
            ("scale_weight", "extra.0.7.", "extra.1", "extra.2", "extra.3", "extra.4"),
        ),
        (SSDLITE, "mobilenet_v3_large", {"reduced_tail": True}, ("extra.",)),
        (RESNET18, "resnet18", {}, ("fpn.",)),
    ],
)
def test_a_backbone_takes_a_classifiers_weights(
    name: str, classifier: str, options: dict[str, bool], allowed: tuple[str, ...], generator: torch.Generator
) -> None:
    network = torchvision.models.get_model(classifier, weights=None, **options)
    detector = build_detector(name, 2)
    new = load_weights(detector, adapt_state(name, detector, network.state_dict()), Fit.NEW_LAYERS, name)
    backbone = [key.removeprefix("backbone.") for key in new if key.startswith("backbone.")]
    assert backbone and all(key.startswith(allowed) for key in backbone)
    own = [value for key, value in detector.backbone.state_dict().items() if not key.startswith(allowed)]
    theirs = [
        value for key, value in network.state_dict().items() if not key.startswith(("classifier", "fc."))
    ]
    assert len(own) == len(theirs) and all(torch.equal(a, b) for a, b in zip(own, theirs, strict=True))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (SSDLITE, "head.classification_head.module_list.2.1.bias"),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "roi_heads.box_predictor.bbox_pred.bias"),
    ],
)
def test_published_outputs_that_stand_for_no_class_are_left_out(name: str, key: str) -> None:
    published, detector = build_detector(name, 90), build_detector(name, 80)
    state = _parameters(published)
    rows = published_rows(name)
    is_box = "bbox_pred" in key
    # Each value says which output it belongs to.
    numbers = torch.arange(91.0)
    state[key] = numbers.repeat_interleave(4) if is_box else numbers.repeat(len(state[key]) // 91)
    load_weights(detector, adapt_state(name, detector, state), Fit.EXACT, name)
    kept = torch.tensor(rows, dtype=torch.float32)
    expected = kept.repeat_interleave(4) if is_box else kept.repeat(len(state[key]) // 91)
    assert torch.equal(detector.state_dict()[key], expected)


def test_published_norms_without_epsilon_compute_the_same_with_ours() -> None:
    name = "fasterrcnn_resnet50_fpn"
    detector = build_detector(name, 80)
    state = {k: v for k, v in build_detector(name, 90).state_dict().items() if "num_batches" not in k}
    state["backbone.body.bn1.running_var"] = torch.full((64,), 0.25)
    load_weights(detector, adapt_state(name, detector, state), Fit.EXACT, name)
    norm = detector.backbone.body.bn1
    assert norm.eps == 1e-5
    x = torch.randn(1, 64, 2, 2)
    assert torch.allclose(norm.eval()(x), (x - norm.running_mean.view(-1, 1, 1)) / 0.5, atol=1e-6)


def test_a_detectors_own_weights_load_and_others_are_refused(tmp_path: Path) -> None:
    entry = find_model(SSDLITE)
    path = tmp_path / "detector.safetensors"
    save_tensors(build_detector(SSDLITE, 2).state_dict(), path)
    assert (
        load_pretrained(entry, str(path), 2).state_dict().keys()
        == build_detector(SSDLITE, 2).state_dict().keys()
    )
    with pytest.raises(DirnetError, match="do not fit"):
        load_pretrained(entry, str(path), 5)
    _, new = load_for_training(entry, str(path), 5)
    assert new and all(key.startswith("head.classification_head") for key in new)
