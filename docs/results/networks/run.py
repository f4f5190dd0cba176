"""Measures each network of docs/networks.md and writes that page's table.

    python docs/results/networks/run.py [--stages files,training,training_general,latency]
                                        [--only NAME ...] [--work FOLDER]

What was measured is stored beside this file, a JSON per network; what is there is not measured again, so that
a stopped run goes on (remove a part of a file to measure it again). Needs no data: the digits come with
scikit-learn, and for sizes and times the weights and images are random.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import NETWORKS, Network
from PIL import Image
from safetensors.torch import save_file
from table import update_page
from torch import nn

from dirnet_convert import api
from dirnet_convert.convert.policy import Decision
from dirnet_convert.environment import package_versions
from dirnet_convert.errors import DirnetError
from dirnet_convert.files import write_atomic
from dirnet_convert.finetune.interrupt import StoppedError
from dirnet_convert.models.catalog import find_model
from dirnet_convert.run import RunFolder

HERE = Path(__file__).resolve().parent
SEED = 0
IMAGENET_CLASSES = 1000
# The paper's estimator and distillation, and what the recipe 'classifier' has.
PAPER_RECIPE, GENERAL_RECIPE = "digits-resnet20-dirnet", "digits-resnet20"
# Files and times are of the paper's activation; RPReLU takes the same operators.
ACTIVATION = "hardtanh"
# Random weights and noise decide nothing here; a few images set the statistics.
CALIBRATION = 4
VERIFIED = 2


def random_weights(network: Network, work: Path) -> Path:
    """Write the network with random weights, its batch norms' statistics those of noise."""
    path = work / f"{network.key}.safetensors"
    if path.is_file():
        return path
    torch.manual_seed(SEED)
    entry = find_model(network.model)
    module = entry.build(None).train()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None
    with torch.no_grad():
        module(torch.randn(CALIBRATION, 3, entry.image_size, entry.image_size))
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)
    return path


def noise_folder(work: Path) -> Path:
    """Write 1000 classes of two small random images each: networks keep ImageNet's number of outputs."""
    root = work / "noise"
    generator = np.random.default_rng(SEED)
    for split in ("train", "val"):
        for label in range(IMAGENET_CLASSES):
            path = root / split / f"class{label:03d}" / "image.png"
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return root


def native_run(network: Network, work: Path) -> RunFolder:
    """Return the run of the network at its own input size, random weights, converted and exported."""
    run = RunFolder(work / f"{network.key}-native")
    if run.onnx_path.is_file():
        return run
    small = find_model(network.model).image_size == 32
    data = "digits" if small else f"folder:{noise_folder(work)}"
    if not run.config_path.is_file():
        api.convert(
            network.model,
            data,
            weights=str(random_weights(network, work)),
            overrides=[f"convert.calibration_images={CALIBRATION}", f"convert.activation={ACTIVATION}"],
            out=run.path,
        )
    api.export_onnx(run, images=VERIFIED)
    return run


def files(network: Network, work: Path) -> dict[str, Any]:
    """Return what is binarized, and the sizes of the two files."""
    run = native_run(network, work)
    plan = json.loads(run.plan_path.read_text(encoding="utf-8"))
    layers = plan["layers"]
    binary = [layer for layer in layers if layer["decision"] == Decision.BINARIZE]
    fp32, packed = run.teacher_onnx_path.stat().st_size, run.onnx_path.stat().st_size
    return {
        "image_size": run.read_config().image_size,
        "classes": run.read_config().classes,
        "layers": len(layers),
        "binary_layers": len(binary),
        "macs": sum(layer["macs"] for layer in layers),
        "binary_macs": sum(layer["macs"] for layer in binary),
        "weights": sum(layer["weights"] for layer in layers),
        "binary_weights": sum(layer["weights"] for layer in binary),
        "shortcuts_added": len(plan["structure"]["shortcuts"]),
        "norms_added": len(plan["structure"]["norms"]),
        "fp32_bytes": fp32,
        "binary_bytes": packed,
    }


def training(network: Network, work: Path, recipe: str) -> dict[str, Any]:
    """Train the network on the digits from random weights, convert it, fine-tune it; return accuracies."""
    started = time.perf_counter()
    options = [
        f"data.image_size={network.edge}",
        f"data.train_limit={network.images}",
        f"pretrain.epochs={network.fp32_epochs}",
        f"pretrain.lr={network.fp32_lr}",
        f"pretrain.batch_size={network.batch}",
        f"finetune.epochs={network.binary_epochs}",
        f"finetune.lr={network.binary_lr}",
        f"finetune.batch_size={network.batch}",
    ]
    fp32, binary = (RunFolder(work / f"{network.key}-{kind}") for kind in ("fp32", "binary"))
    for run in (fp32, binary):
        # What an earlier, stopped attempt left.
        shutil.rmtree(run.path, ignore_errors=True)
    api.pretrain(network.model, "digits", recipe=recipe, weights="none", overrides=options, out=fp32.path)
    api.convert(str(fp32.path), "digits", recipe=recipe, overrides=options, out=binary.path)
    converted = api.evaluate(binary)
    api.finetune(binary)
    return {
        "edge": network.edge,
        "images": network.images,
        "fp32_epochs": network.fp32_epochs,
        "binary_epochs": network.binary_epochs,
        "fp32_top1_percent": api.evaluate(fp32).top1_percent,
        "converted_top1_percent": converted.top1_percent,
        "finetuned_top1_percent": api.evaluate(binary).top1_percent,
        "test_images": converted.images,
        "seconds": round(time.perf_counter() - started),
    }


def latency(network: Network, work: Path) -> dict[str, Any]:
    """Return what ``dirnet bench --json`` prints: FP32, INT8 and binary, one image, one thread."""
    run = native_run(network, work)
    command = [sys.executable, "-m", "dirnet_convert", "bench", "--run", str(run.path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DirnetError(done.stderr.strip())
    return json.loads(done.stdout)


STAGES: dict[str, Callable[[Network, Path], dict[str, Any]]] = {
    "files": files,
    "training": functools.partial(training, recipe=PAPER_RECIPE),
    "training_general": functools.partial(training, recipe=GENERAL_RECIPE),
    "latency": latency,
}


def measure(network: Network, stage: str, work: Path) -> bool:
    """Measure one stage of one network, unless it is stored; tell whether it could be."""
    path = HERE / f"{network.key}.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if stage in stored:
        return True
    print(f"{network.key}: {stage}", flush=True)
    try:
        result = STAGES[stage](network, work)
    except StoppedError:
        raise
    except DirnetError as error:
        print(f"{network.key}: {stage} failed: {error}", flush=True)
        return False
    stored[stage] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": SEED,
        "versions": package_versions(),
        **result,
    }
    write_atomic(path, json.dumps(stored, indent=1) + "\n")
    return True


def main() -> int:
    """Measure what is not stored yet, and write the table; exit with 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stages", default=",".join(STAGES), help=f"of {', '.join(STAGES)}")
    keys = [network.key for network in NETWORKS]
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=keys, default=keys)
    parser.add_argument("--work", type=Path, default=Path("runs") / "networks")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    by_key = {network.key: network for network in NETWORKS}
    chosen = [by_key[key] for key in options.only]
    results = [
        measure(network, stage, options.work.resolve())
        for stage in options.stages.split(",")
        for network in chosen
    ]
    update_page()
    return 0 if all(results) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (StoppedError, KeyboardInterrupt):
        sys.exit("Stopped; the same command goes on.")
