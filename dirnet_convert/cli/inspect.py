"""dirnet inspect: what would be binarized, what kept, and why; needs no data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dirnet_convert.cli.options import (
    BinarizeOption,
    ImageSizeOption,
    JsonOption,
    KeepOption,
    console,
    print_json,
)
from dirnet_convert.errors import UsageError
from dirnet_convert.run import run_of_model

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dirnet_convert.recipe import ConvertOptions
    from dirnet_convert.run import RunFolder

_SWEEP = "Sweep over every network (--all)"


def command(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="torchvision name, timm:NAME, resnet20, vgg_small, path/to/file.py:factory, or a run's "
            "folder.",
            show_default=False,
        ),
    ] = None,
    keep: KeepOption = None,
    binarize: BinarizeOption = None,
    image_size: ImageSizeOption = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Number of classes.", show_default=False)] = None,
    json: JsonOption = False,
    all_networks: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Instead of one MODEL: try the whole way, with random weights, for each network of the "
            "libraries.",
            rich_help_panel=_SWEEP,
        ),
    ] = False,
    library: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="torchvision, timm (the smallest network of each family) or all.",
            show_default="all",
            rich_help_panel=_SWEEP,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where the results go: FILE.json, or FILE.md with FILE.json beside it.",
            show_default=False,
            rich_help_panel=_SWEEP,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Networks at a time.", show_default="1", rich_help_panel=_SWEEP),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from the results at --out; what failed is tried again.",
            rich_help_panel=_SWEEP,
        ),
    ] = False,
) -> None:
    """List every layer of MODEL with its size, its operations, and what convert would do with it.

    Of a converted run: the layers of the network that it was made from, under the run's own choice.

    Example: `dirnet inspect mobilenet_v2`
    """
    if all_networks:
        of_one = {
            "MODEL": model,
            "--keep": keep,
            "--binarize": binarize,
            "--image-size": image_size,
            "--classes": classes,
        }
        _refuse(of_one, "--all is about every network: leave {} away.")
        from dirnet_convert.cli.sweep import sweep_command

        sweep_command(library or "all", out, jobs or 1, resume=resume, json=json)
        return
    of_all = {"--library": library, "--out": out, "--jobs": jobs, "--resume": resume or None}
    _refuse(of_all, "{} belongs to --all, a sweep over every network; leave it away or add --all.")
    if model is None:
        raise UsageError("Which network? Name a MODEL, or use --all.")
    _inspect_one(model, tuple(keep or ()), tuple(binarize or ()), image_size, classes, json=json)


def _refuse(given: dict[str, object], sentence: str) -> None:
    for name, value in given.items():
        if value is not None:
            raise UsageError(sentence.format(name))


def _inspect_one(
    model: str,
    keep: tuple[str, ...],
    binarize: tuple[str, ...],
    image_size: int | None,
    classes: int | None,
    *,
    json: bool,
) -> None:
    import dataclasses

    from dirnet_convert.cli.plan_table import plan_table, plan_totals, trace_lines
    from dirnet_convert.convert.binarize_network import plan_network
    from dirnet_convert.convert.detector import plan_detector
    from dirnet_convert.convert.trace import TraceFailure, opaque_modules
    from dirnet_convert.models.detectors import is_detector

    run = run_of_model(model)
    if run is None:
        network, image, options = _from_catalog(model, classes, image_size)
    elif classes is not None or image_size is not None:
        raise UsageError(f"{model} is a run, which knows its --classes and --image-size; leave them away.")
    else:
        network, image, options = _from_run(run)
    options = dataclasses.replace(
        options, keep=(*options.keep, *keep), binarize=(*options.binarize, *binarize)
    )
    plan_layers = plan_detector if is_detector(network) else plan_network
    plan, graph = plan_layers(network.eval(), image, options)
    cause = graph.cause if isinstance(graph, TraceFailure) else ""
    opaque = {} if isinstance(graph, TraceFailure) else opaque_modules(graph)
    if json:
        layers = [dataclasses.asdict(layer) for layer in plan]
        print_json({"model": model, "layers": layers, "trace_failure": cause, "untraced_modules": opaque})
        return
    console.print(plan_table(plan, {}, console.width))
    console.print(plan_totals(plan), highlight=False, soft_wrap=True)
    for line in trace_lines(cause, opaque):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _from_catalog(
    model: str, classes: int | None, image_size: int | None
) -> tuple[nn.Module, Tensor, ConvertOptions]:
    import torch

    from dirnet_convert.models.catalog import find_model
    from dirnet_convert.recipe import ConvertOptions

    entry = find_model(model)
    size = image_size or entry.image_size
    if not size:
        raise UsageError("The size of this network's images is not known; give it with --image-size.")
    return entry.build(classes), torch.zeros(1, 3, size, size), ConvertOptions()


def _from_run(run: RunFolder) -> tuple[nn.Module, Tensor, ConvertOptions]:
    """Build what the run's run.toml describes; the weights are not needed to plan."""
    from dirnet_convert.convert.rebuild import example_image, run_entry

    config = run.read_config()
    return run_entry(run, config).build(config.classes), example_image(config), config.recipe.convert
