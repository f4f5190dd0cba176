"""Trains ResNet-20 for CIFAR-10 once for each row of the ablation and writes README.md beside this file.

    python docs/results/ablations/run.py --data-dir DATA --weights FILE [--epochs 12] [--seeds 0]
                                         [--precision bfloat16] [--share 1/2] [--only KEY ...] [--work FOLDER]

What was trained is stored in results.json and not trained again; a training that was stopped goes on where it
was. Without arithmetic in bfloat16 a machine is faster in float32; the page marks what was trained so. Two of
these on a core each (--share 1/2 and --share 2/2, with taskset and OMP_NUM_THREADS=1) take less
time than one on two.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import sys
from pathlib import Path
from typing import Any

from table import write_page
from variants import COMMON, RECIPE, VARIANTS, Variant

from dirnet_convert import api
from dirnet_convert.environment import package_versions
from dirnet_convert.errors import DirnetError
from dirnet_convert.files import write_atomic
from dirnet_convert.run import RunFolder

RESULTS = Path(__file__).resolve().parent / "results.json"
MODEL = "resnet20"


def train(variant: Variant, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Convert and fine-tune one row, or go on with it; return the last epoch's accuracy."""
    run = RunFolder(options.work / f"{variant.key}-{options.epochs}-{seed}")
    if not run.config_path.is_file():
        api.convert(
            MODEL,
            "cifar10",
            recipe=RECIPE,
            data_dir=options.data_dir,
            weights=options.weights,
            overrides=[
                *COMMON,
                *variant.options,
                f"finetune.precision={options.precision}",
                f"finetune.epochs={options.epochs}",
                f"seed={seed}",
            ],
            out=run.path,
        )
    api.finetune(run)
    epochs = [json.loads(line) for line in run.metrics_path.read_text(encoding="utf-8").splitlines()]
    accuracy = api.evaluate(run)
    return {
        "variant": variant.key,
        "seed": seed,
        "epochs": options.epochs,
        "precision": options.precision,
        "top1_percent": accuracy.top1_percent,
        "test_images": accuracy.images,
        "by_epoch_percent": [epoch["test_top1_percent"] for epoch in epochs],
        "seconds": round(sum(epoch["seconds"] for epoch in epochs)),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": package_versions(),
    }


def stored() -> list[dict[str, Any]]:
    """Return the rows of results.json."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else []


def store(row: dict[str, Any], work: Path) -> None:
    """Add one row to results.json and write the page; processes that share the folder ``work`` take turns."""
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_atomic(RESULTS, json.dumps([*stored(), row], indent=1) + "\n")
        write_page()


def done(variant: Variant, seed: int, epochs: int) -> bool:
    """Tell whether a row is stored."""
    wanted = (variant.key, seed, epochs)
    return any((row["variant"], row["seed"], row["epochs"]) == wanted for row in stored())


def main() -> int:
    """Train what is not stored yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--share", default="1/1", help="this process's part of the rows, such as 1/2")
    keys = [variant.key for variant in VARIANTS]
    parser.add_argument("--only", nargs="+", metavar="KEY", choices=keys, default=keys)
    parser.add_argument("--work", type=Path, default=Path("runs") / "ablations")
    options = parser.parse_args()
    part, parts = (int(number) for number in options.share.split("/"))
    chosen = [variant for variant in VARIANTS if variant.key in options.only]
    for seed in options.seeds:
        for variant in chosen[part - 1 :: parts]:
            if not done(variant, seed, options.epochs):
                print(f"{variant.key}, seed {seed}", flush=True)
                store(train(variant, seed, options), options.work)
    write_page()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (DirnetError, KeyboardInterrupt) as error:
        sys.exit(str(error) or "Stopped; the same command goes on.")
