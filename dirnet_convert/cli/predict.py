"""dirnet predict: the likeliest classes of one image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
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
from dirnet_convert.cli.target import EngineChoice, find_target
from dirnet_convert.errors import UsageError

OnnxOption = Annotated[
    Path | None, typer.Option("--onnx", help="ONNX file instead of a run.", show_default=False)
]


def command(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.", show_default=False)],
    run: RunOption = None,
    onnx: OnnxOption = None,
    engine: EngineOption = EngineChoice.AUTO,
    data: DataOption = None,
    data_dir: DataDirOption = None,
    image_size: ImageSizeOption = None,
    json: JsonOption = False,
) -> None:
    """Print the five likeliest classes of an image, with their probabilities.

    An ONNX file that lies in no run folder needs --data, which gives class names and normalization.

    Example: `dirnet predict cat.jpg`
    """
    import dataclasses

    from dirnet_convert.data.file_source import prepare_image
    from dirnet_convert.evaluate import top_classes

    if run is not None and onnx is not None:
        raise UsageError("Name a run with --run or a file with --onnx, not both.")
    if not image.is_file():
        state = "is a folder" if image.is_dir() else "is not there"
        raise UsageError(f"{image} {state}; name an image file.")
    target = find_target(onnx or run, engine)
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
        table.add_row(f"{100 * probability:.2f} %", name)
    console.print(table)
