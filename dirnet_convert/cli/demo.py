"""dirnet demo: the whole way on embedded data, in about two minutes on two cores."""

from __future__ import annotations

import importlib.util
import json
import shlex
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.rule import Rule
from rich.table import Table

from dirnet_convert.cli import bench, convert, export, finetune, pretrain
from dirnet_convert.cli.options import OutOption, console
from dirnet_convert.errors import DirnetError

if TYPE_CHECKING:
    from dirnet_convert.run import RunFolder

RECIPE = "digits-resnet20"
BENCH_ROUNDS = 5


def command(out: OutOption = None) -> None:
    """Train ResNet-20 on scikit-learn's handwritten digits, binarize, fine-tune, export and time it.

    Example: `dirnet demo`
    """
    from dirnet_convert.run import new_run

    if importlib.util.find_spec("sklearn") is None:
        raise DirnetError(
            "The demo's digits come with scikit-learn; install it: pip install 'dirnet-convert[demo]'."
        )
    started = time.perf_counter()
    folder = new_run("demo", out).path
    original, binary = folder / "fp32", folder / "binary"
    _heading(f"dirnet pretrain resnet20 --recipe {RECIPE} --out {original}")
    pretrain.command("resnet20", recipe=RECIPE, out=original)
    _heading(f"dirnet convert {original} --out {binary}")
    convert.command(str(original), out=binary)
    _heading(f"dirnet finetune {binary}")
    finetune.command(binary)
    _heading(f"dirnet export --onnx {binary}")
    export.command(binary)
    _heading(f"dirnet bench {binary}")
    bench.command(binary, rounds=BENCH_ROUNDS)
    _heading("Result")
    console.print(_result(binary))
    console.print(f"All of it took {time.perf_counter() - started:.0f} s.", highlight=False)
    console.print(f"Next: dirnet report {shlex.quote(str(binary))}", highlight=False)


def _heading(text: str) -> None:
    console.print(Rule(f"[bold]$ {text}[/bold]" if text.startswith("dirnet") else text, align="left"))


def _result(path: Path) -> Table:
    from dirnet_convert.run import RunFolder

    run = RunFolder(path)
    measured = json.loads(run.bench_path.read_text())
    accuracy = _accuracies(run)
    table = Table("in ONNX Runtime", header_style="bold")
    for heading in ("top-1, %", "median ms", "speed", "file, kB"):
        table.add_column(heading, justify="right")
    for engine in measured["results"][0]["engines"]:
        name = engine["engine"]
        table.add_row(
            engine["title"],
            f"{accuracy[name]:.2f}" if name in accuracy else "",
            f"{engine['median_ms']:.3f}",
            f"{engine['times_fp32']:.2f}x",
            f"{measured['file_bytes'][name] / 1e3:.0f}",
        )
    return table


def _accuracies(run: RunFolder) -> dict[str, float]:
    """Return the top-1 accuracy, %, of the FP32, INT8 and binary ONNX files on the test images."""
    from dirnet_convert.evaluate import evaluate, session_predictor
    from dirnet_convert.run_data import open_run_data
    from dirnet_convert.runtime.session import load_session

    config = run.read_config()
    source = open_run_data(config)
    with tempfile.TemporaryDirectory() as scratch:
        int8 = Path(scratch) / "int8.onnx"
        bench.quantize_teacher(run, int8)
        return {
            name: evaluate(session_predictor(load_session(path), source.info), source, 64).top1_percent
            for name, path in (("fp32", run.teacher_onnx_path), ("int8", int8), ("binary", run.onnx_path))
        }
