"""dirnet bench --device arm64 where this machine is none: under an emulator, or on a board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dirnet_convert.cli.options import console, error_console, print_json
from dirnet_convert.errors import UsageError

if TYPE_CHECKING:
    from dirnet_convert.bench.arm64.remote import RemoteOptions
    from dirnet_convert.bench.devices import Way
    from dirnet_convert.bench.engines import EngineKind
    from dirnet_convert.bench.suite import BenchOptions, BenchResult, Progress
    from dirnet_convert.run import RunFolder

# An emulator needs about a minute for the multiply-adds of a network at this size.
EMULATED_IMAGE_SIZE = 64


def bench_emulated(run: RunFolder, seed: int, json: bool) -> None:
    """Count the instructions of a run's networks under an emulator, print them and write them to the run."""
    import tempfile

    from rich.progress import Progress, SpinnerColumn, TextColumn

    from dirnet_convert.bench.arm64.emulated import run_emulated
    from dirnet_convert.bench.arm64.emulated_report import tables, write_report

    quiet = json or not error_console.is_terminal
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with (
        tempfile.TemporaryDirectory() as scratch,
        Progress(*columns, console=error_console, transient=True, disable=quiet) as progress,
    ):
        task = progress.add_task("preparing the models", total=None)
        models, size = _small_models(run, Path(scratch))

        def show(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        result = run_emulated(models, size, seed, show)
    report = write_report(result, run.emulated_bench_path)
    if json:
        print_json(report)
        return
    console.print(tables(result))
    console.print(f"Written to {run.emulated_bench_path}", highlight=False, markup=False, soft_wrap=True)


def measure_remote(
    way: Way,
    target: str,
    models: dict[EngineKind, Path],
    options: BenchOptions,
    remote: RemoteOptions,
    on_progress: Progress,
) -> BenchResult:
    """Measure ``models`` on the board ``target`` or, over adb, on the phone."""
    from dirnet_convert.bench.arm64.remote import run_remote
    from dirnet_convert.bench.arm64.transport import Adb, Ssh
    from dirnet_convert.bench.devices import Way

    transport = Ssh(target) if way is Way.SSH else Adb()
    try:
        return run_remote(transport, models, options, remote, on_progress)
    finally:
        transport.close()


def _small_models(run: RunFolder, scratch: Path) -> tuple[dict[EngineKind, Path], int]:
    """Export a run's networks for images that an emulator can manage; return the files and the size.

    Raises:
        UsageError: the run's network is a detector.
    """
    from torch import nn

    from dirnet_convert.bench.engines import EngineKind
    from dirnet_convert.convert.rebuild import example_image, load_run
    from dirnet_convert.convert.tracer import REJECTIONS
    from dirnet_convert.onnx_export.exporter import export_float_onnx, export_onnx
    from dirnet_convert.recipe import Task

    config = run.read_config()
    if config.task is Task.DETECTION:
        raise UsageError(
            "A detector cannot be made small enough for the emulator; bench it on a board with --ssh."
        )
    networks = load_run(run)
    example = example_image(config)
    small = example[:, :, :EMULATED_IMAGE_SIZE, :EMULATED_IMAGE_SIZE]

    def takes(network: nn.Module) -> bool:
        # A linear layer over a whole map takes maps of one size only, and torch says so as a RuntimeError; a
        # person's own network may say it in any way.
        try:
            network(small)
        except REJECTIONS:
            return False
        return True

    if takes(networks.student) and takes(networks.teacher):
        example = small
    files = {EngineKind.FP32: scratch / "fp32.onnx", EngineKind.BINARY: scratch / "binary.onnx"}
    export_float_onnx(networks.teacher, example, files[EngineKind.FP32])
    export_onnx(networks.student, example, files[EngineKind.BINARY])
    return files, example.shape[-1]
