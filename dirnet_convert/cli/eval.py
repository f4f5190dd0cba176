"""dirnet eval: the accuracy of a run or of an ONNX file, or a detector's mean average precision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dirnet_convert.cli.options import (
    DataDirOption,
    DataOption,
    DownloadOption,
    ImageSizeOption,
    JsonOption,
    RunOption,
    console,
    error_console,
    named_run,
    print_json,
)
from dirnet_convert.cli.target import EngineChoice, find_target
from dirnet_convert.errors import UsageError

TargetArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RUN|FILE.onnx]",
        help="Run folder or ONNX file; the newest run if absent.",
        show_default=False,
    ),
]
EngineOption = Annotated[
    EngineChoice,
    typer.Option(
        "--engine",
        help="dirnet's kernels, stock ONNX Runtime, or PyTorch; auto: kernels if exported, else torch.",
    ),
]


def command(
    target: TargetArgument = None,
    run: RunOption = None,
    engine: EngineOption = EngineChoice.AUTO,
    data: DataOption = None,
    data_dir: DataDirOption = None,
    image_size: ImageSizeOption = None,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Number of test images, evenly spread; 0 is all.")
    ] = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=1,
            help="Images in one inference, of a detector in PyTorch; 64, or 8 for a detector.",
            show_default=False,
        ),
    ] = None,
    download: DownloadOption = False,
    json: JsonOption = False,
) -> None:
    """Measure top-1 (and top-5) accuracy on the test images; of a detector, mean average precision.

    Example: `dirnet eval --engine kernels --limit 1000`
    """
    import dataclasses

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from dirnet_convert.evaluate import evaluate
    from dirnet_convert.evaluate_detection import Precision, evaluate_detector
    from dirnet_convert.recipe import Task

    chosen = find_target(named_run(target, run), engine)
    source = chosen.images(chosen.data_options(data, data_dir, image_size), download)
    detects = source.info.task is Task.DETECTION
    if chosen.config is not None and chosen.config.task is not source.info.task:
        kind = (
            "has boxes, and the run is a classifier" if detects else "has no boxes, and the run is a detector"
        )
        raise UsageError(
            f"Data '{source.info.name}' {kind}; evaluate it on the data that it was trained for."
        )
    total = min(limit, source.test_size) if limit else source.test_size
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    quiet = json or not error_console.is_terminal
    with (
        chosen.predictor(source.info) as predict,
        Progress(*columns, console=error_console, transient=True, disable=quiet) as progress,
    ):
        task = progress.add_task("test images", total=total, rate="")

        def advance(images: int) -> None:
            speed = progress.tasks[task].speed
            progress.update(task, advance=images, rate=f"{speed:.0f} images/s" if speed else "")

        measure = evaluate_detector if detects else evaluate
        size = {} if batch_size is None else {"batch_size": batch_size}
        result = measure(predict, source, limit=limit, on_images=advance, **size)
    if json:
        summary = {
            "model": str(chosen.path),
            "engine": str(chosen.engine),
            "data": source.info.name,
        }
        print_json({**summary, **dataclasses.asdict(result)})
        return
    title = f"{chosen.path} ({chosen.engine}) on {source.info.name}, {result.images} test images"
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    if isinstance(result, Precision):
        console.print(f"mAP at IoU 0.5 [bold]{result.map50_percent:.2f} %[/bold]", highlight=False)
        console.print(f"mAP at IoU 0.5 to 0.95 {result.map_percent:.2f} %", highlight=False)
        return
    console.print(f"top-1 [bold]{result.top1_percent:.2f} %[/bold]", highlight=False)
    if result.top5_percent is not None:
        console.print(f"top-5 {result.top5_percent:.2f} %", highlight=False)
