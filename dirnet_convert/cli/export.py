"""dirnet export: the binarized network of a run as one ONNX file, verified against PyTorch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dirnet_convert.cli.options import (
    DataDirOption,
    DownloadOption,
    JsonOption,
    RunArgument,
    RunOption,
    console,
    named_run,
    print_json,
)
from dirnet_convert.errors import UsageError
from dirnet_convert.recipe import Rest

if TYPE_CHECKING:
    from dirnet_convert.onnx_export.checked import CheckedExport
    from dirnet_convert.onnx_export.detector.verify import DetectionReport
    from dirnet_convert.onnx_export.openvino.export import OpenVinoExport
    from dirnet_convert.onnx_export.rest_check import RestReport
    from dirnet_convert.onnx_export.sizes import RestLayer, SizeReport
    from dirnet_convert.onnx_export.verify_report import VerifyReport

FormatOption = Annotated[bool, typer.Option("--onnx", help="Write ONNX; always done.")]
OpenVinoOption = Annotated[
    bool,
    typer.Option(
        "--openvino", help="Write OpenVINO's model.xml and model.bin, too, for one image at a time."
    ),
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--out", help="The file to write; model.onnx in the run folder if absent.", show_default=False
    ),
]
ImagesOption = Annotated[
    int, typer.Option("--images", min=1, help="Real images on which the file is compared with PyTorch.")
]

RestOption = Annotated[
    Rest,
    typer.Option(
        "--rest", help="How layers that are not binary are stored; int8 is calibrated on the run's images."
    ),
]


def command(
    named: RunArgument = None,
    run: RunOption = None,
    onnx: FormatOption = True,
    openvino: OpenVinoOption = False,
    out: FileOption = None,
    images: ImagesOption = 8,
    rest: RestOption = Rest.FLOAT,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    json: JsonOption = False,
) -> None:
    """Write the run's network to ONNX with packed weights; nothing is written if it differs from PyTorch.

    The float network that it was made from goes into the run folder too, as teacher.onnx, to compare with.

    Example: `dirnet export --onnx --out resnet20.onnx`, or `dirnet export --openvino`
    """
    import contextlib
    import dataclasses

    from onnx import load

    from dirnet_convert.convert.rebuild import load_run
    from dirnet_convert.onnx_export.openvino.export import require_openvino_task, verified_openvino
    from dirnet_convert.onnx_export.run_export import verified_networks
    from dirnet_convert.onnx_export.sizes import compare_sizes, float_layers, int8_layers
    from dirnet_convert.run import open_run
    from dirnet_convert.run_data import open_run_data, placed

    folder = open_run(named_run(named, run))
    path = out or folder.onnx_path
    _require_own_file(path, folder.teacher_onnx_path, openvino)
    rival_path = out.with_suffix(folder.openvino_path.suffix) if out else folder.openvino_path
    config = folder.read_config()
    if openvino:
        require_openvino_task(config)
    network = load_run(folder)
    options = dataclasses.replace(
        config.recipe.data, image_size=config.image_size, mean=config.mean, std=config.std
    )
    if data_dir is not None:
        options = placed(options, data_dir)
    source = open_run_data(config, options, download=download)
    with console.status("Exporting and verifying ...") if not json else contextlib.nullcontext():
        # Everything is compared before anything is written.
        networks = verified_networks(
            network.student,
            network.teacher,
            config,
            source,
            path,
            folder.teacher_onnx_path,
            verified_images=images,
            rest=rest,
        )
        checked_rival = None
        if openvino:
            pixels = source.calibration_images(images, config.recipe.seed)
            checked_rival = verified_openvino(network.student, pixels, rival_path, networks.student.model)
        exported = networks.write()
        rival = checked_rival.write() if checked_rival is not None else None
    sizes = compare_sizes(folder.teacher_onnx_path, path)
    # By itself, onnx takes a file for text or JSON where its name ends so.
    written = load(path, format="protobuf")
    layers, quantized = float_layers(written), int8_layers(written)
    if json:
        print_json(_summary(exported, sizes, layers, quantized) | _openvino_summary(rival))
        return
    _print(exported, sizes, layers, quantized)
    if rival is not None:
        console.print(_openvino_line(rival), highlight=False, soft_wrap=True)
    console.print("Next: [bold]dirnet bench[/bold]")


def _require_own_file(path: Path, teacher: Path, openvino: bool) -> None:
    """Do nothing where no other file of the export, ``teacher`` or one of OpenVINO's, goes to ``path``.

    Raises:
        UsageError: ``path`` is a folder, or what another file would overwrite.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the file to write, for example {path / 'model.onnx'}.")
    if path.resolve() == teacher.resolve():
        raise UsageError(f"{path} is the file of the float network; name another one with --out.")
    if openvino and path.suffix.lower() in (".xml", ".bin"):
        raise UsageError(
            f"--openvino writes {path.stem}.xml and {path.stem}.bin beside the ONNX file; give that one "
            f"another ending, for example --out {path.with_suffix('.onnx')}."
        )


def _summary(
    exported: CheckedExport,
    sizes: SizeReport,
    layers: tuple[RestLayer, ...],
    quantized: tuple[RestLayer, ...],
) -> dict[str, object]:
    import dataclasses

    report = exported.report
    return {
        "path": str(exported.result.path),
        "verified": True,
        "verified_on_images": report.images,
        "fp32_bytes": sizes.float_file_bytes,
        "binary_bytes": sizes.binary_file_bytes,
        "ratio": sizes.ratio,
        "sizes": [dataclasses.asdict(row) for row in sizes.rows],
        "engines": [{**dataclasses.asdict(e), "kernels": e.kernels.value} for e in report.engines],
        "tolerances": dataclasses.asdict(report.tolerances),
        "layers": [dataclasses.asdict(layer) for layer in report.layers],
        "float_layers": [dataclasses.asdict(layer) for layer in layers],
        "int8_layers": [dataclasses.asdict(layer) for layer in quantized],
        "transposes": [dataclasses.asdict(transpose) for transpose in exported.result.transposes],
        **_detection_summary(exported),
        **_rest_summary(exported),
    }


def _detection_summary(exported: CheckedExport) -> dict[str, object]:
    import dataclasses

    from dirnet_convert.onnx_export.detector.export import CheckedDetector

    if not isinstance(exported, CheckedDetector):
        return {}
    return {
        "detections": [{**dataclasses.asdict(d), "kernels": d.kernels.value} for d in exported.detections]
    }


def _openvino_summary(rival: OpenVinoExport | None) -> dict[str, object]:
    if rival is None:
        return {}
    report = rival.report
    return {
        "openvino": {
            "path": str(rival.path),
            "bytes": rival.file_bytes,
            "int8_layers": rival.int8_layers,
            "verified_on_images": report.images,
            "error": report.error,
            "free_error": report.free_error,
            "flipped_share": report.flipped_share,
            "top1_agreement": report.top1_agreement,
            "binary_convolutions": report.kernels,
            "layers": [
                {"name": layer.name, "arithmetic": str(layer.arithmetic), "reason": layer.reason}
                for layer in report.layers
            ],
        }
    }


def _openvino_line(rival: OpenVinoExport) -> str:
    report = rival.report
    in_float = [f"{layer.name} ({layer.reason})" for layer in report.layers if layer.reason]
    kernels = ", ".join(f"{count} x {name}" for name, count in report.kernels.items())
    return (
        f"Wrote {rival.path} and its .bin: {len(report.layers) - len(in_float)} of {len(report.layers)} "
        f"binary layers on bits ({kernels or 'none'}), largest error {report.error:.1e} on {report.images} "
        f"images ({report.free_error:.1e} running free)."
        + (f" In INT8 there: {rival.int8_layers} other layers." if rival.int8_layers else "")
        + (f" In float there: {', '.join(in_float)}." if in_float else "")
    )


def _rest_summary(exported: CheckedExport) -> dict[str, object]:
    import dataclasses

    from dirnet_convert.onnx_export.rest_export import Int8RestExport

    if not isinstance(exported, Int8RestExport):
        return {"rest": Rest.FLOAT.value}
    return {"rest": Rest.INT8.value, "int8": dataclasses.asdict(exported.rest)}


def _print(
    exported: CheckedExport,
    sizes: SizeReport,
    layers: tuple[RestLayer, ...],
    quantized: tuple[RestLayer, ...],
) -> None:
    from dirnet_convert.onnx_export.rest_export import Int8RestExport

    console.print(_size_table(sizes))
    if quantized:
        console.print(_layer_table("Layers in INT8", quantized))
    if layers:
        console.print(_layer_table("Layers left in float", layers))
    console.print(_layers_line(exported.report), highlight=False)
    console.print(_engine_table(exported))
    result, report = exported.result, exported.report
    places = Counter(f"{t.after} -> {' and '.join(t.before)}" for t in result.transposes)
    console.print(
        f"Transposes between layouts that are left: {len(result.transposes)}"
        + (f" ({', '.join(f'{count} x {place}' for place, count in places.items())})." if places else "."),
        highlight=False,
    )
    engines = {engine.kernels.value for engine in report.engines}
    if "dirnet" not in engines:
        console.print(
            "The kernels are not installed here: verified with stock ONNX Runtime alone.", style="yellow"
        )
    equal = f"equal to PyTorch on {report.images} images"
    if isinstance(exported, Int8RestExport):
        _print_rest(exported.rest)
        equal = f"{equal} before {len(quantized)} other layers became INT8"
    console.print(
        f"Wrote {result.path}: {len(result.binary_nodes)} binary layers, {sizes.ratio:.1f} times smaller "
        f"than the float file, {equal}.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _print_rest(rest: RestReport) -> None:
    before, after = rest.before, rest.after
    console.print(
        f"INT8 for the rest, calibrated on {rest.calibration_images} images: top-1 "
        f"{before.top1_percent:.2f} % before, {after.top1_percent:.2f} % after, on {before.images} test "
        f"images; the same answer for {_percent(rest.top1_agreement)} %, the logits differ by "
        f"{rest.logit_difference:.2g} of their root mean square.",
        highlight=False,
    )
    if rest.agreement is not None:
        error = "-" if rest.agreement.error is None else f"{rest.agreement.error:.1e}"
        console.print(
            f"INT8 model, kernels against stock ONNX Runtime on {rest.agreement.images} images: share of "
            f"bits that differ {rest.agreement.flipped_share:.1e}, largest error of a logit {error}.",
            highlight=False,
        )


def _size_table(sizes: SizeReport) -> Table:
    table = Table(title="Size, kB", title_justify="left", header_style="bold")
    table.add_column("kind")
    for heading in ("float", "binary"):
        table.add_column(heading, justify="right")
    for row in sizes.rows:
        if row.float_bytes or row.binary_bytes:
            table.add_row(row.kind.value, f"{row.float_bytes / 1e3:,.1f}", f"{row.binary_bytes / 1e3:,.1f}")
    table.add_section()
    table.add_row("file", f"{sizes.float_file_bytes / 1e3:,.1f}", f"{sizes.binary_file_bytes / 1e3:,.1f}")
    return table


def _layer_table(title: str, layers: tuple[RestLayer, ...]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for heading in ("layer", "operator"):
        table.add_column(heading, overflow="fold")
    for heading in ("weights", "kB"):
        table.add_column(heading, justify="right")
    for layer in layers:
        table.add_row(layer.name, layer.operator, f"{layer.weights:,}", f"{layer.bytes / 1e3:,.1f}")
    return table


def _layers_line(report: VerifyReport) -> str:
    errors = [layer.error for layer in report.layers if layer.error is not None]
    flips = max((layer.flipped_share for layer in report.layers), default=0.0)
    free = max((layer.free_flipped_share for layer in report.layers), default=0.0)
    error = max(errors, default=0.0)
    return (
        f"Binary layers against PyTorch, the worst of {len(report.layers)}: error {error:.1e} of the root "
        f"mean square, share of bits flipped by rounding {flips:.1e} ({free:.1e} running free)."
    )


def _engine_table(exported: CheckedExport) -> Table:
    from dirnet_convert.onnx_export.detector.export import CheckedDetector

    table = Table(title="Outputs against PyTorch", title_justify="left", header_style="bold")
    table.add_column("engine")
    if isinstance(exported, CheckedDetector):
        headings, agreements = _detection_columns(exported.detections)
    else:
        headings = ("same top-1, %",)
        agreements = [(_percent(engine.top1_agreement),) for engine in exported.report.engines]
    for heading in ("largest error", "running free", *headings):
        table.add_column(heading, justify="right")
    for engine, columns in zip(exported.report.engines, agreements, strict=True):
        table.add_row(engine.kernels.value, f"{engine.error:.1e}", f"{engine.free_error:.1e}", *columns)
    return table


def _detection_columns(
    reports: tuple[DetectionReport, ...],
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    headings = ("detections", "box error, px", "score error", "same running free, %")
    return headings, [
        (str(d.boxes), f"{d.steps.box:.1e}", f"{d.steps.score:.1e}", _percent(d.agreement)) for d in reports
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
