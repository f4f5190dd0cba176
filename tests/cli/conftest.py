"""The command line in this process, a small network of a person's own, and runs of it at each stage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dirnet_convert.cli.main import app

NETWORK = """
from torch import nn


def unit(inputs, outputs, stride):
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def small(num_classes=10):
    body = nn.Sequential(unit(3, 16, 2), unit(16, 32, 2), unit(32, 32, 1))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes))


def all_float(num_classes=10):
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(8, num_classes))
"""
# Options that keep a training short enough for a test.
QUICK = (
    *(
        "--set",
        "data.train_limit=128",
        "--set",
        "data.test_limit=40",
        "--set",
        "convert.calibration_images=32",
    ),
    *("--set", "pretrain.batch_size=32", "--set", "pretrain.compile=false"),
    *("--set", "finetune.batch_size=32", "--set", "finetune.compile=false", "--set", "finetune.epochs=1"),
)

Invoke = Callable[..., Result]


def run_command(*arguments: object) -> Result:
    """Run one command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def dirnet() -> Invoke:
    """What runs one command in this process."""
    return run_command


@pytest.fixture(scope="session")
def quick() -> tuple[str, ...]:
    """The options that keep a training short."""
    return QUICK


@pytest.fixture
def refused() -> Callable[..., str]:
    """What runs a command that must fail with one sentence and the given exit code; returns the sentence."""

    def check(code: int, *arguments: object) -> str:
        result = run_command(*arguments)
        assert result.exit_code == code, (result.exit_code, result.output, result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        assert len(lines) == 1, result.stderr
        return lines[0]

    return check


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A MODEL in a file of its own, with two convolutions that can be binarized."""
    file = tmp_path_factory.mktemp("network") / "net.py"
    file.write_text(NETWORK)
    return f"{file}:small"


@pytest.fixture(scope="session")
def pretrained_once(network: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pretrained") / "fp32"
    result = run_command(
        *("pretrain", network, "--data", "digits", "--epochs", 1, "--out", out, "--json", *QUICK)
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["run"] == str(out)
    return out


@pytest.fixture(scope="session")
def converted_once(pretrained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "binary"
    result = run_command("convert", pretrained_once, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def exported_once(library: Path, converted_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = shutil.copytree(converted_once, tmp_path_factory.mktemp("exported") / "binary")
    result = run_command("export", "--run", out, "--images", 2, "--json")
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def pretrained(pretrained_once: Path, tmp_path: Path) -> Path:
    """A run of pretrain that the test may change."""
    return Path(shutil.copytree(pretrained_once, tmp_path / "fp32"))


@pytest.fixture
def converted(converted_once: Path, tmp_path: Path) -> Path:
    """A converted run that the test may change."""
    return Path(shutil.copytree(converted_once, tmp_path / "binary"))


@pytest.fixture
def exported(exported_once: Path, tmp_path: Path) -> Path:
    """A converted run with its ONNX files that the test may change."""
    return Path(shutil.copytree(exported_once, tmp_path / "exported"))
