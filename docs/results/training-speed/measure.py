"""Measures the training speed of a converted run on this machine: with two threads and with two processes, in
steps of 64, 128 and 256 images in all.

    python docs/results/training-speed/measure.py RUN figures.json

RUN is made by `dirnet convert`; it stays as it is. Eighty steps are an epoch here; the first one, which
compiles, does not count.
"""

from __future__ import annotations

import datetime
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

EPOCHS = 4
STEPS = 80
BATCHES = (64, 128, 256)
CIFAR10_IMAGES = 50_000
CORES = 2


def images_per_s(run: Path, way: str, batch: int) -> list[float]:
    """Return the images per second of each epoch but the first, trained one ``way`` or the other with
    ``batch`` images in a step of all processes."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(CORES), "-m", "--"]
    processes = CORES if way == "processes" else 1
    settings = (
        f"data.train_limit={STEPS * batch}",
        f"data.test_limit={batch}",
        f"finetune.epochs={EPOCHS}",
        f"finetune.batch_size={batch // processes}",
        "finetune.checkpoint_minutes=60",
    )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "run"
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoint", "metrics.jsonl"))
        start = torchrun if processes > 1 else ["-m"]
        command = [sys.executable, *start, "dirnet_convert", "finetune", "--run", str(copy)]
        command += [word for setting in settings for word in ("--set", setting)]
        threads = str(CORES // processes)
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": threads})
        lines = (copy / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["images_per_s"] for line in lines[1:]]


def processor() -> str:
    """Return the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    names = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    return next(
        (n.partition(":")[2].strip() for n in names if n.startswith("model name")), platform.machine()
    )


def main(run: str, out: str) -> None:
    """Measure both ways and write the figures."""
    figures = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": CORES,
        "torch": torch.__version__,
        "measured": [],
    }
    for batch, way in itertools.product(BATCHES, ("processes", "threads")):
        seen = images_per_s(Path(run), way, batch)
        middle = statistics.median(seen)
        figures["measured"].append(
            {
                "batch": batch,
                "way": way,
                "images_per_s": [round(value, 1) for value in seen],
                "median_images_per_s": round(middle, 1),
                "seconds_per_cifar10_epoch": round(CIFAR10_IMAGES / middle, 1),
            }
        )
        Path(out).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
