"""The Python API goes the whole way on a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dirnet_convert import api
from dirnet_convert.errors import UsageError

QUICK = ("data.train_limit=256", "data.test_limit=64", "convert.calibration_images=64")
ONE_EPOCH = ("finetune.epochs=1", "finetune.batch_size=32", "finetune.compile=false")


def test_the_verbs_follow_each_other(tmp_path: Path) -> None:
    pretrain = ("pretrain.epochs=1", "pretrain.batch_size=32", "pretrain.compile=false", *QUICK)
    original, trained = api.pretrain(
        "resnet20", "digits", weights="none", overrides=pretrain, out=tmp_path / "fp32"
    )
    assert trained.epochs == 1
    converted = api.convert(str(original.path), "digits", overrides=QUICK, out=tmp_path / "binary")
    api.finetune(converted.run, overrides=ONE_EPOCH)
    assert "<h2>Training</h2>" in api.report(converted.run).read_text()
    exported = api.export_onnx(converted.run)
    in_torch = api.evaluate(converted.run)
    in_onnx = api.evaluate(converted.run, onnx=exported.result.path)
    assert in_torch.top1_percent == in_onnx.top1_percent
    assert in_torch.images == 64


@pytest.mark.parametrize("existed", [True, False])
def test_a_training_that_is_refused_leaves_no_run(tmp_path: Path, existed: bool) -> None:
    out = tmp_path / "fp32"
    if existed:
        out.mkdir()
    with pytest.raises(UsageError, match="fewer than a batch"):
        api.pretrain("resnet20", "digits", weights="none", overrides=("pretrain.batch_size=100000",), out=out)
    assert out.exists() == existed and (not existed or not list(out.iterdir()))


def test_importing_the_package_loads_no_framework() -> None:
    import subprocess
    import sys

    check = "import sys, dirnet_convert; sys.exit(any(m in sys.modules for m in ('torch', 'onnxruntime')))"
    assert subprocess.run([sys.executable, "-P", "-c", check], check=False).returncode == 0
