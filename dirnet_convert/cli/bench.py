"""dirnet bench: FP32, INT8 and binary side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dirnet_convert.cli.options import (
    DataDirOption,
    JsonOption,
    RunArgument,
    RunOption,
    console,
    error_console,
    named_run,
    print_json,
)
from dirnet_convert.errors import DirnetError, UsageError, nearest_name

if TYPE_CHECKING:
    from dirnet_convert.bench.engines import EngineKind
    from dirnet_convert.run import RunFolder

CALIBRATION_IMAGES = 64
RIVALS = ("openvino",)
VERIFIED_IMAGES = 4
ROUNDS = 15
ENGINES = "fp32,int8,binary"


def command(
    named: RunArgument = None,
    run: RunOption = None,
    threads: Annotated[str, typer.Option("--threads", help="Numbers of threads, e.g. 1,2.")] = "1",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images in one inference.")] = 1,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Rounds in which each engine has a turn.")
    ] = ROUNDS,
    device: Annotated[str, typer.Option("--device", help="cpu (this machine) or arm64.")] = "cpu",
    engines: Annotated[
        str, typer.Option("--engines", help="Of fp32, int8, binary, stock; fp32 and binary are needed.")
    ] = ENGINES,
    against: Annotated[
        str,
        typer.Option(
            "--against",
            help="openvino: the same networks there too, compared first, then timed in the same rounds.",
            show_default=False,
        ),
    ] = "",
    ssh: Annotated[
        str,
        typer.Option(
            "--ssh",
            metavar="USER@HOST",
            help="With --device arm64: a board to measure on.",
            show_default=False,
        ),
    ] = "",
    adb: Annotated[bool, typer.Option("--adb", help="With --device arm64: a phone to measure on.")] = False,
    runner: Annotated[
        str,
        typer.Option(
            "--runner",
            help="With --ssh: python (the board's, the default) or native, which needs nothing there.",
            show_default=False,
        ),
    ] = "",
    cores: Annotated[
        str,
        typer.Option(
            "--cores",
            help="With --device arm64: big (the default), little or all, if they differ.",
            show_default=False,
        ),
    ] = "",
    layers: Annotated[
        bool, typer.Option("--layers", help="Measure every binary convolution alone, too.")
    ] = False,
    data_dir: DataDirOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random inputs.")] = 0,
    json: JsonOption = False,
) -> None:
    """Time a run's original network in FP32 and INT8 and its binary one, in turns on the same machine.

    The figures are also written to the run's bench.json. With `--device arm64`: on this machine if it is one,
    on a board (`--ssh`), on a phone (`--adb`), or else instructions counted under an emulator.

    Example: `dirnet bench --threads 1,2 --layers`, or `dirnet bench --device arm64 --ssh pi@raspberrypi`
    """
    import tempfile

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from dirnet_convert.bench.arm64.bundle import RunnerKind
    from dirnet_convert.bench.arm64.cores import CoreChoice, choose_cores, local_capacities, pin_to
    from dirnet_convert.bench.arm64.remote import RemoteOptions
    from dirnet_convert.bench.devices import Device, Way, choose_way
    from dirnet_convert.bench.engines import EngineKind
    from dirnet_convert.bench.measure import MeasureOptions
    from dirnet_convert.bench.report import tables, write_report
    from dirnet_convert.bench.suite import BenchOptions, run_suite
    from dirnet_convert.cli.bench_arm64 import bench_emulated, measure_remote
    from dirnet_convert.onnx_export.openvino.export import require_openvino_task
    from dirnet_convert.run import open_run

    kind_of_device = Device(_one_of(device, [str(kind) for kind in Device], "--device"))
    way = choose_way(kind_of_device, ssh, adb)
    if runner and way is not Way.SSH:
        raise UsageError("--runner is for a board over --ssh; leave it out.")
    if cores and (kind_of_device is Device.CPU or way is Way.EMULATED):
        raise UsageError("--cores is for an arm64 machine, a board or a phone; leave it out.")
    if way is not Way.NATIVE and (layers or against):
        raise UsageError(
            "--layers and --against work on the machine itself; leave them out with --device arm64 elsewhere."
        )
    core_choice = CoreChoice(_one_of(cores or "big", [str(kind) for kind in CoreChoice], "--cores"))
    # A phone has no Python that could be asked.
    usual = RunnerKind.NATIVE if way is Way.ADB else RunnerKind.PYTHON
    runner_kind = RunnerKind(_one_of(runner or usual, [str(kind) for kind in RunnerKind], "--runner"))
    if kind_of_device is Device.ARM64 and way is Way.NATIVE:
        pin_to(choose_cores(local_capacities(), core_choice))
    if against:
        _one_of(against, list(RIVALS), "--against")
    known = [str(kind) for kind in EngineKind if kind.twin is None]
    chosen = [EngineKind(_one_of(name, known, "--engines")) for name in engines.split(",")]
    options = BenchOptions(
        threads=_numbers(threads),
        batch=batch,
        layers=layers,
        seed=seed,
        measure=MeasureOptions(rounds=rounds),
    )
    folder = open_run(named_run(named, run))
    if way is Way.EMULATED:
        if (options.threads, batch, rounds, engines) != ((1,), 1, ROUNDS, ENGINES):
            raise UsageError(
                "The emulator counts one image of FP32 and binary on one thread; leave --threads, --batch, "
                "--rounds and --engines out."
            )
        bench_emulated(folder, seed, json)
        return
    if against:
        require_openvino_task(folder.read_config())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    quiet = json or not error_console.is_terminal
    with (
        tempfile.TemporaryDirectory() as scratch,
        Progress(*columns, console=error_console, transient=True, disable=quiet) as progress,
    ):
        task = progress.add_task("preparing the models", total=None)
        models = _model_files(folder, chosen, Path(scratch), data_dir)
        if against:
            models |= _openvino_files(folder, Path(scratch), seed)

        def show(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        if way is Way.NATIVE:
            result = run_suite(models, options, show)
        else:
            result = measure_remote(way, ssh, models, options, RemoteOptions(runner_kind, core_choice), show)
    path = folder.bench_path if way is Way.NATIVE else folder.board_bench_path
    report = write_report(result, path)
    if json:
        print_json(report)
        return
    console.print(tables(result))
    console.print(f"Written to {path}", highlight=False, markup=False, soft_wrap=True)


def _one_of(name: str, known: list[str], option: str) -> str:
    if name.strip() not in known:
        raise UsageError(
            f"{option}: '{name.strip()}' is none of {', '.join(known)}{nearest_name(name, known)}."
        )
    return name.strip()


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(
            f"--threads: whole numbers with commas between them are expected, not '{text}'."
        ) from None


def _model_files(
    run: RunFolder, engines: list[EngineKind], scratch: Path, data_dir: Path | None
) -> dict[EngineKind, Path]:
    from dirnet_convert.bench.engines import EngineKind

    if not run.onnx_path.is_file():
        raise UsageError(f"{run.path} has no {run.onnx_path.name}; make it with 'dirnet export'.")
    if not run.teacher_onnx_path.is_file():
        _export_teacher(run)
    files = {
        EngineKind.FP32: run.teacher_onnx_path,
        EngineKind.INT8: scratch / "int8.onnx",
        EngineKind.BINARY: run.onnx_path,
        EngineKind.STOCK: run.onnx_path,
    }
    if EngineKind.INT8 in engines:
        quantize_teacher(run, files[EngineKind.INT8], data_dir)
    return {kind: files[kind] for kind in EngineKind if kind in engines}


def _openvino_files(run: RunFolder, scratch: Path, seed: int) -> dict[EngineKind, Path]:
    """Build the run's network for OpenVINO, checked against PyTorch; its FP32 twin runs from ONNX."""
    import torch

    from dirnet_convert.bench.engines import EngineKind
    from dirnet_convert.convert.rebuild import example_image, load_run
    from dirnet_convert.onnx_export.openvino.export import export_openvino_checked
    from dirnet_convert.runtime.model_file import read_model

    example = example_image(run.read_config())
    generator = torch.Generator().manual_seed(seed)
    # Within the range that INT8 was calibrated for, whatever the data's normalization.
    images = 2 * torch.rand(VERIFIED_IMAGES, *example.shape[1:], generator=generator) - 1
    path = scratch / run.openvino_path.name
    export_openvino_checked(load_run(run).student, images, path, read_model(run.onnx_path))
    return {EngineKind.OPENVINO_FP32: run.teacher_onnx_path, EngineKind.OPENVINO: path}


def _export_teacher(run: RunFolder) -> None:
    from dirnet_convert.convert.rebuild import example_image, load_run
    from dirnet_convert.onnx_export.run_export import export_teacher

    config = run.read_config()
    export_teacher(load_run(run).teacher, config, example_image(config), run.teacher_onnx_path)


def quantize_teacher(run: RunFolder, output: Path, data_dir: Path | None = None) -> None:
    """Write the run's FP32 network in INT8, calibrated on the run's images.

    Raises:
        UsageError: the images cannot be opened.
    """
    from dirnet_convert.bench.int8 import quantize_int8
    from dirnet_convert.onnx_export.detector.model import PART
    from dirnet_convert.recipe import Task
    from dirnet_convert.run_data import open_run_data, placed

    config = run.read_config()
    options = config.recipe.data
    if data_dir is not None:
        options = placed(options, data_dir)
    try:
        source = open_run_data(config, options)
    except DirnetError as error:
        raise UsageError(
            f"INT8 is calibrated on the run's images. {error} (--engines fp32,binary leaves INT8 out.)"
        ) from error
    images = source.calibration_images(CALIBRATION_IMAGES, config.recipe.seed)
    part = f"{PART}/" if config.task is Task.DETECTION else ""
    quantize_int8(run.teacher_onnx_path, output, images.numpy(), float_part=part)
