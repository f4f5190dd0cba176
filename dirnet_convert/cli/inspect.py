"""dirnet inspect: what would be binarized, what kept, and why; needs no data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dirnet_convert.cli.options import (
    ImageSizeOption,
    JsonOption,
    ModelArgument,
    console,
    print_json,
    run_of_model,
)
from dirnet_convert.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dirnet_convert.recipe import ConvertOptions
    from dirnet_convert.run import RunFolder

GlobsOption = Annotated[
    list[str] | None, typer.Option(metavar="GLOB", help="Layer names.", show_default=False)
]


def command(
    model: ModelArgument,
    keep: GlobsOption = None,
    binarize: GlobsOption = None,
    image_size: ImageSizeOption = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Number of classes.", show_default=False)] = None,
    json: JsonOption = False,
) -> None:
    """List every layer of MODEL with its size, its operations, and what convert would do with it.

    Of a converted run: the layers of the network that it was made from, under the run's own choice.

    Example: `dirnet inspect mobilenet_v2`
    """
    import dataclasses

    from dirnet_convert.cli.plan_table import plan_table, plan_totals
    from dirnet_convert.convert.binarize_network import plan_network
    from dirnet_convert.convert.trace import TraceFailure

    run = run_of_model(model)
    if run is None:
        network, image, options = _from_catalog(model, classes, image_size)
    elif classes is not None or image_size is not None:
        raise UsageError(f"{model} is a run, which knows its --classes and --image-size; leave them away.")
    else:
        network, image, options = _from_run(run)
    options = dataclasses.replace(
        options,
        keep=(*options.keep, *(keep or ())),
        binarize=(*options.binarize, *(binarize or ())),
    )
    plan, graph = plan_network(network.eval(), image, options)
    cause = graph.cause if isinstance(graph, TraceFailure) else ""
    if json:
        print_json({"model": model, "layers": [dataclasses.asdict(p) for p in plan], "trace_failure": cause})
        return
    remedies = {p.name: p.remedy for p in plan}
    console.print(plan_table(plan, {"to change": remedies}))
    console.print(plan_totals(plan), highlight=False, soft_wrap=True)
    if cause:
        console.print(f"The network could not be traced ({cause}); the module tree was used.", markup=False)


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
