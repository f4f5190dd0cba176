"""Times how long ONNX Runtime takes to load binary networks: with the kernels, and stock, in two ways.

    python docs/results/stock-load/measure.py [--rounds 3] [--out FILE] MODEL ...

The networks have random weights. "stock" is ONNX Runtime as it comes; "stock, no reuse" has
SessionOptions.enable_mem_reuse = False, as load_session() sets it. The ways take turns; figures are medians.
Runs of one image follow, to show what the option costs there.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from dirnet_convert.bench.machine import this_machine
from dirnet_convert.convert.binarize_network import binarize_network
from dirnet_convert.files import write_atomic
from dirnet_convert.models.catalog import find_model
from dirnet_convert.onnx_export.exporter import binary_model, write_model
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions
from dirnet_convert.runtime.session import load_session

WAYS = ("kernels", "stock", "stock, no reuse")
SIZE = 64
RUNS = 5


def opened(way: str, path: Path) -> onnxruntime.InferenceSession:
    """Open a session on one thread in one of WAYS."""
    if way == "kernels":
        return load_session(path, threads=1)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.enable_mem_reuse = way == "stock"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def measured(model: str, rounds: int, folder: Path) -> dict[str, Any]:
    """Return the median seconds that each way takes to load ``model``, and to run one image."""
    torch.manual_seed(0)
    images = torch.randn(1, 3, SIZE, SIZE)
    student = binarize_network(
        find_model(model).build(None).eval(), images, ConvertOptions(), EstimatorOptions()
    ).student
    path = folder / "model.onnx"
    proto, _ = binary_model(student, images)
    write_model(proto, path)
    load_s: dict[str, list[float]] = {way: [] for way in WAYS}
    run_s: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            began = time.perf_counter()
            session = opened(way, path)
            load_s[way].append(time.perf_counter() - began)
            feed = {session.get_inputs()[0].name: images.numpy().astype(np.float32)}
            session.run(None, feed)
            for _ in range(RUNS):
                began = time.perf_counter()
                session.run(None, feed)
                run_s[way].append(time.perf_counter() - began)
    return {
        "model": model,
        "binary_operators": sum(node.domain == "ai.dirnet" for node in proto.graph.node),
        "load_s": {way: round(statistics.median(values), 3) for way, values in load_s.items()},
        "run_ms": {way: round(1e3 * statistics.median(values), 2) for way, values in run_s.items()},
    }


def main() -> None:
    """Measure every network that was named, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    options = parser.parse_args()
    rows = []
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measured(model, options.rounds, Path(folder)))
        print(json.dumps(rows[-1]), flush=True)
    result = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": dataclasses.asdict(this_machine()),
        "rounds": options.rounds,
        "image_size": SIZE,
        "rows": rows,
    }
    write_atomic(options.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
