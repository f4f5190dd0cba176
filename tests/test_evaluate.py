"""Accuracy: counting, class numbers, fixed batches, and the networks' modes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from dirnet_convert.data.source import DataInfo, Limits
from dirnet_convert.data.tensor_source import TensorSource, TensorSplit
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.evaluate import evaluate, module_predictor, session_predictor, top_classes

CLASSES, SIZE = 8, 4


def source(classes: int = CLASSES, images: int = 20) -> TensorSource:
    """The first pixel of an image is its class."""
    labels = torch.arange(images) % classes
    pixels = torch.zeros(images, 3, SIZE, SIZE, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = labels.to(torch.uint8)
    split = TensorSplit(pixels, labels)
    names = tuple(str(k) for k in range(classes))
    info = DataInfo("made up", classes, names, 3, SIZE, (0.0,) * 3, (1.0,) * 3)
    return TensorSource(info, Limits(), split, split)


class Reader(nn.Module):
    """Ranks the classes from the true one upwards, or from ``shift`` beyond it."""

    def __init__(self, shift: int = 0, classes: int = CLASSES) -> None:
        super().__init__()
        self.shift, self.classes = shift, classes
        self.drop = nn.Dropout(0.9)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        labels = (images[:, 0, 0, 0] * 255).round().to(torch.int64)
        distance = (torch.arange(self.classes)[None] - labels[:, None] - self.shift) % self.classes
        return self.drop(100.0 - distance.to(torch.float32))


@pytest.mark.parametrize(("shift", "top1", "top5"), [(0, 100, 100), (4, 0, 100), (3, 0, 0), (7, 0, 100)])
def test_top1_and_top5(shift: int, top1: float, top5: float) -> None:
    seen: list[int] = []
    with module_predictor(Reader(shift)) as predict:
        result = evaluate(predict, source(), batch_size=6, on_images=seen.append)
    assert (result.top1_percent, result.top5_percent) == (top1, top5)
    assert result.images == sum(seen) == 20


def test_no_top5_for_five_classes() -> None:
    with module_predictor(Reader(classes=5)) as predict:
        assert evaluate(predict, source(classes=5)).top5_percent is None


def test_the_modes_are_put_back() -> None:
    network = Reader().train()
    network.drop.eval()
    with module_predictor(network) as predict:
        assert not network.training
        evaluate(predict, source(), limit=4)
    assert network.training
    assert not network.drop.training


def test_another_number_of_classes() -> None:
    with (
        module_predictor(Reader(classes=9)) as predict,
        pytest.raises(UsageError, match=r"\(20, 9\).*8 classes"),
    ):
        evaluate(predict, source())


def test_no_test_images() -> None:
    with module_predictor(Reader()) as predict, pytest.raises(UsageError, match="no test images"):
        evaluate(predict, source(images=0))


def session(batch: int | str, size: int = SIZE) -> onnxruntime.InferenceSession:
    """A linear network from all pixels to the classes."""
    weight = np.random.default_rng(0).standard_normal((3 * size * size, CLASSES), dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_a_fixed_batch_gives_the_same_answers(batch: int) -> None:
    info = source().info
    images = torch.rand(7, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    expected = session_predictor(session("N"), info)(images)
    found = session_predictor(session(batch), info)(images)
    assert found.shape == (7, CLASSES)
    torch.testing.assert_close(found, expected)


def test_a_model_for_other_images() -> None:
    with pytest.raises(UsageError, match="gives images of"):
        session_predictor(session("N", size=5), source().info)


def test_the_likeliest_classes() -> None:
    best = top_classes(torch.tensor([0.0, 3.0, 1.0]), ("ant", "bee"), count=5)
    assert [name for name, _ in best] == ["bee", "class 2", "ant"]
    assert sum(probability for _, probability in best) == pytest.approx(1)
    with pytest.raises(DirnetError, match="not finite"):
        top_classes(torch.tensor([0.0, float("nan")]), ())
