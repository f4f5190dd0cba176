"""Tests the trainings of run.py with other statistics of their batch norms, and writes norms.json beside it.

    python docs/results/ablations/norms.py [--images 2048] [--work FOLDER] RUN ...

Each RUN is a folder in --work, such as gradual_ste-12-0. Statistics are those that the training kept, those
of training images as they are tested ("plain", what finetune.norm_images measures), and those of training
images as they are augmented ("augmented", what distill.teacher_norm_images measures).
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dirnet_convert.binarize.norm_statistics import measure_norms
from dirnet_convert.convert.rebuild import load_run
from dirnet_convert.data.augment import Augmentation
from dirnet_convert.data.source import ImageSource
from dirnet_convert.environment import package_versions
from dirnet_convert.evaluate import evaluate, module_predictor
from dirnet_convert.files import write_atomic
from dirnet_convert.recipe import TrainOptions
from dirnet_convert.run import RunFolder, open_run
from dirnet_convert.run_data import open_run_data

RESULTS = Path(__file__).resolve().parent / "norms.json"
BATCH = 64


def top1_percent(network: nn.Module, data: ImageSource) -> float:
    """Return the accuracy on all test images."""
    with module_predictor(network) as predict:
        return evaluate(predict, data).top1_percent


def augmented_batches(data: ImageSource, options: TrainOptions, seed: int, count: int) -> Iterator[Tensor]:
    """Yield ``count`` training images as an epoch would begin with, in batches."""
    augment = Augmentation(options.augment, options.image_size, options.crop_area_min)
    batches = data.train_batches(BATCH, augment, seed, 0)
    return (images for images, _ in itertools.islice(batches, count // BATCH))


def measured(run: RunFolder, count: int) -> dict[str, Any]:
    """Return the accuracies of one run."""
    config = run.read_config()
    recipe, data, network = config.recipe, open_run_data(config), load_run(run).student.eval()
    result: dict[str, Any] = {"run": run.path.name, "images": count}
    result["kept_top1_percent"] = top1_percent(network, data)
    measure_norms(network, data.plain_train_batches(count, BATCH, recipe.seed))
    result["plain_top1_percent"] = top1_percent(network, data)
    measure_norms(network, augmented_batches(data, recipe.finetune, recipe.seed, count))
    result["augmented_top1_percent"] = top1_percent(network, data)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return result | {"date": date, "versions": package_versions()}


def main() -> int:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", metavar="RUN", nargs="+")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--work", type=Path, default=Path("runs") / "ablations")
    options = parser.parse_args()
    rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else []
    for name in options.runs:
        row = measured(open_run(options.work / name), options.images)
        print({key: value for key, value in row.items() if key != "versions"}, flush=True)
        rows = [*(old for old in rows if (old["run"], old["images"]) != (name, options.images)), row]
        write_atomic(RESULTS, json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
