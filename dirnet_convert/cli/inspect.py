"""dirnet inspect: what would be binarized, what kept, and why; needs no data."""

from __future__ import annotations

from typing import Annotated

import typer

from dirnet_convert.cli.options import ImageSizeOption, JsonOption, ModelArgument, console, print_json

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

    Example: `dirnet inspect mobilenet_v2`
    """
    import dataclasses

    import torch

    from dirnet_convert.cli.plan_table import plan_table, plan_totals
    from dirnet_convert.convert.binarize_network import plan_network
    from dirnet_convert.convert.trace import TraceFailure
    from dirnet_convert.errors import UsageError
    from dirnet_convert.models.catalog import find_model
    from dirnet_convert.recipe import ConvertOptions

    entry = find_model(model)
    size = image_size or entry.image_size
    if not size:
        raise UsageError("The size of this network's images is not known; give it with --image-size.")
    options = ConvertOptions(keep=tuple(keep or ()), binarize=tuple(binarize or ()))
    network = entry.build(classes).eval()
    plan, graph = plan_network(network, torch.zeros(1, 3, size, size), options)
    cause = graph.cause if isinstance(graph, TraceFailure) else ""
    if json:
        print_json({"model": model, "layers": [dataclasses.asdict(p) for p in plan], "trace_failure": cause})
        return
    remedies = {p.name: p.remedy for p in plan}
    console.print(plan_table(plan, {"to change": remedies}))
    console.print(plan_totals(plan), highlight=False)
    if cause:
        console.print(f"The network could not be traced ({cause}); the module tree was used.", markup=False)
