"""dirnet predict: the likeliest classes of one image, or the objects in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dirnet_convert.cli.eval import EngineOption
from dirnet_convert.cli.options import (
    DataDirOption,
    DataOption,
    ImageSizeOption,
    JsonOption,
    RunOption,
    console,
    print_json,
)
from dirnet_convert.cli.target import EngineChoice, Target, find_target
from dirnet_convert.errors import UsageError

if TYPE_CHECKING:
    from dirnet_convert.runtime.detector import Detections

OnnxOption = Annotated[
    Path | None, typer.Option("--onnx", help="ONNX file instead of a run.", show_default=False)
]
PathsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="[NETWORK] IMAGE",
        help="A run folder or an ONNX file (the newest run if absent), and an image file.",
        show_default=False,
    ),
]
DrawnOption = Annotated[
    Path | None,
    typer.Option("--out", help="Write the image with its boxes here (detectors).", show_default=False),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--threshold", min=0.0, max=1.0, help="Least score of an object (detectors); 0.5 if absent."
    ),
]
_THRESHOLD = 0.5


def command(
    paths: PathsArgument,
    run: RunOption = None,
    onnx: OnnxOption = None,
    engine: EngineOption = EngineChoice.AUTO,
    data: DataOption = None,
    data_dir: DataDirOption = None,
    image_size: ImageSizeOption = None,
    out: DrawnOption = None,
    threshold: ThresholdOption = None,
    json: JsonOption = False,
) -> None:
    """Print the five likeliest classes of an image; with a detector the objects in it, and draw them.

    A classifier's ONNX file that lies in no run folder needs --data, which gives class names and
    normalization.

    Example: `dirnet predict model.onnx street.jpg --out boxes.png`
    """
    named, image = _network_and_image(paths, run, onnx)
    target = find_target(named, engine)
    if target.is_detector():
        given = {"--data": data, "--data-dir": data_dir, "--image-size": image_size}
        for option, value in given.items():
            if value is not None:
                raise UsageError(
                    f"{option}: a detector knows its classes and its images itself; leave it out."
                )
        _detect(target, image, out, _THRESHOLD if threshold is None else threshold, json)
        return
    for option, value in (("--out", out), ("--threshold", threshold)):
        if value is not None:
            raise UsageError(f"{option}: {target.path} is a classifier and finds no boxes; leave it out.")
    if data_dir is not None and data is None:
        raise UsageError("--data-dir says where --data lies; name that too, or leave it out.")
    _classify(target, image, data, data_dir, image_size, json)


def _network_and_image(paths: list[Path], run: Path | None, onnx: Path | None) -> tuple[Path | None, Path]:
    if run is not None and onnx is not None:
        raise UsageError("Name a run with --run or a file with --onnx, not both.")
    if len(paths) > 2:
        raise UsageError(f"{len(paths)} paths are given; name a network and an image, or an image alone.")
    if len(paths) == 2 and (run is not None or onnx is not None):
        raise UsageError("Name the network once, as an argument or with --run or --onnx.")
    image = paths[-1]
    if not image.is_file():
        state = "is a folder" if image.is_dir() else "is not there"
        raise UsageError(f"{image} {state}; name an image file.")
    return (paths[0] if len(paths) == 2 else onnx or run), image


def _classify(
    target: Target,
    image: Path,
    data: str | None,
    data_dir: Path | None,
    image_size: int | None,
    json: bool,
) -> None:
    import dataclasses

    from dirnet_convert.data.file_source import prepare_image
    from dirnet_convert.evaluate import top_classes

    if data is not None:
        info = target.images(target.data_options(data, data_dir, image_size), download=False).info
    else:
        info = target.info()
        if image_size is not None:
            info = dataclasses.replace(info, image_size=image_size)
    pixels = prepare_image(image, info)
    with target.predictor(info) as predict:
        best = top_classes(predict(pixels)[0], info.class_names)
    if json:
        print_json({"image": str(image), "classes": [{"name": name, "probability": p} for name, p in best]})
        return
    table = Table.grid(padding=(0, 2))
    for name, probability in best:
        table.add_row(f"{100 * probability:.2f} %", escape(name))
    console.print(table)


def _detect(target: Target, image: Path, out: Path | None, threshold: float, json: bool) -> None:
    from dirnet_convert.data.file_source import load_image
    from dirnet_convert.drawing import check_image_path, draw_detections, save_image

    if out is not None:
        check_image_path(out)
    picture = load_image(image)
    with target.detector() as detector:
        found = detector.detect(picture).above(threshold)
    if out is not None:
        save_image(draw_detections(picture, found), out)
    if json:
        print_json(_summary(image, out, threshold, found))
        return
    if not found.names:
        console.print(f"No object with a score of at least {threshold:g}; --threshold lowers that.")
    else:
        console.print(_table(found))
    if out is not None:
        console.print(f"Drawn to {out}", highlight=False, markup=False, soft_wrap=True)


def _summary(image: Path, out: Path | None, threshold: float, found: Detections) -> dict[str, object]:
    rows = zip(found.names, found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    return {
        "image": str(image),
        "threshold": threshold,
        "objects": [
            {"name": name, "label": label, "score": score, "box": box} for name, label, score, box in rows
        ],
        "drawn": str(out) if out is not None else None,
    }


def _table(found: Detections) -> Table:
    table = Table(header_style="bold")
    table.add_column("object")
    for heading in ("score, %", "left", "top", "right", "bottom"):
        table.add_column(heading, justify="right")
    for name, score, box in zip(found.names, found.scores, found.boxes, strict=True):
        table.add_row(escape(name), f"{100 * score:.1f}", *(f"{value:.0f}" for value in box))
    return table
