"""The four commands on real images with real pretrained weights, in a short form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


def dirnet(*arguments: object) -> dict:
    """Run a command with --json in a process of its own and return what it printed."""
    command = [sys.executable, "-P", "-m", "dirnet_convert", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def cifar10(real_data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, real_data_root / "unpack_cifar10.py", root], check=True)
    return root


def test_cifar10_resnet20_keeps_its_accuracy_from_pytorch_to_both_onnx_routes(
    real_data_root: Path, cifar10: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    weights = real_data_root / "weights" / "cifar10-resnet20-akamaster.th"
    converted = dirnet(
        "convert", "resnet20", "--data", "cifar10", "--data-dir", cifar10, "--weights", weights, "--out", run
    )
    assert all(layer["entropy_bits"] > 0.8 for layer in converted["input_bits"])
    before = dirnet("eval", run, "--engine", "torch", "--limit", 2000)["top1_percent"]
    dirnet("finetune", "--run", run, "--epochs", 1, "--set", "data.train_limit=6400")
    exported = dirnet("export", "--run", run, "--onnx")
    assert exported["verified"]

    accuracy = {
        engine: dirnet("eval", run, "--engine", engine)["top1_percent"]
        for engine in ("torch", "kernels", "stock")
    }
    # Six thousand images of one epoch: far from trained, but far from chance, and better than before.
    assert accuracy["torch"] > max(before, 25.0)
    # The float parts round differently, and a sum beside zero then gets the other sign: at this stage one
    # image in a thousand is decided otherwise, by PyTorch in float against itself in double as well.
    assert accuracy["kernels"] == pytest.approx(accuracy["torch"], abs=0.1)
    assert accuracy["stock"] == pytest.approx(accuracy["torch"], abs=0.1)


def test_mobilenet_v2_with_imagenet_weights_converts_exports_and_verifies(
    real_data_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    weights = real_data_root / "weights" / "imagenet-mobilenet_v2.pth"
    photographs = real_data_root / "imagenet-val-650"
    converted = dirnet(
        *("convert", "mobilenet_v2", "--data", "imagenet", "--data-dir", photographs, "--weights", weights),
        *("--out", run, "--set", "convert.calibration_images=64"),
    )
    kept = {layer["name"]: layer["reason"] for layer in converted["layers"] if layer["decision"] == "keep"}
    assert "depthwise" in kept["features.2.conv.1.0"]
    exported = dirnet("export", "--run", run, "--onnx", "--images", 8)
    assert exported["verified"]
    assert exported["binary_bytes"] < exported["fp32_bytes"]
