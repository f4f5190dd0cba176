"""Measures how fast a converted run trains beside its full-precision network, on this machine's accelerator
(on its processors where there is none).

    python docs/results/training-speed/against_fp32.py RUN figures.json

RUN is made by `dirnet convert`; it stays as it is. Both networks are trained in turns, as RUN's
[finetune] says (precision, batch, optimizer, augmentation), the full-precision one by labels alone and
the binary one by its teacher, too. Eighty steps are an epoch here; the first one of each training, which
compiles, does not count.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from measure import EPOCHS, STEPS, processor

from dirnet_convert.finetune.job import TrainResult
from dirnet_convert.finetune.precision import chosen_precision
from dirnet_convert.finetune.ranks import one_process
from dirnet_convert.recipe import Recipe
from dirnet_convert.run import RunFolder
from dirnet_convert.training import finetune_run, new_pretrain_run, pretrain_run

ROUNDS = 3
Training = Callable[[RunFolder, Recipe], TrainResult]


def shortened(recipe: Recipe) -> Recipe:
    """Return ``recipe`` with a few short epochs, the same for both trainings."""
    options = dataclasses.replace(recipe.finetune, epochs=EPOCHS, holdout=0.0, checkpoint_minutes=60.0)
    images = options.batch_size
    data = dataclasses.replace(recipe.data, train_limit=STEPS * images, test_limit=images)
    return dataclasses.replace(recipe, data=data, finetune=options, pretrain=options)


def images_per_s(run: RunFolder, recipe: Recipe, training: Training) -> list[float]:
    """Return the images per second of each epoch but the first of a new ``training`` in ``run``."""
    torch.compiler.reset()
    training(run, recipe)
    lines = run.metrics_path.read_text(encoding="utf-8").splitlines()[-EPOCHS:]
    return [json.loads(line)["images_per_s"] for line in lines[1:]]


def main(path: str, out: str) -> None:
    """Measure both networks and write the figures."""
    run = RunFolder(Path(path))
    recipe = shortened(run.read_config().recipe)
    seen: dict[str, list[float]] = {"fp32": [], "binary": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            plain = new_pretrain_run(recipe, Path(folder) / f"fp32-{number}")
            seen["fp32"] += images_per_s(plain, recipe, pretrain_run)
            binary = copied(run, Path(folder) / f"binary-{number}")
            seen["binary"] += images_per_s(binary, recipe, finetune_run)
    device = one_process().device
    middle = {name: statistics.median(values) for name, values in seen.items()}
    figures = {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "network": recipe.model.name,
        "batch": recipe.finetune.batch_size,
        "precision": chosen_precision(recipe.finetune.precision, device),
        "images_per_s": {name: [round(value, 1) for value in values] for name, values in seen.items()},
        "binary_of_fp32": round(middle["binary"] / middle["fp32"], 3),
    }
    Path(out).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))


def copied(run: RunFolder, path: Path) -> RunFolder:
    """Return a copy of ``run`` without its training."""
    shutil.copytree(run.path, path, ignore=shutil.ignore_patterns("checkpoint", "metrics.jsonl"))
    return RunFolder(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
