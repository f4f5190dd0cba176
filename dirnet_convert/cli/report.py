"""dirnet report: one page of HTML about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dirnet_convert.cli.options import JsonOption, RunArgument, RunOption, console, named_run, print_json


def command(
    named: RunArgument = None,
    run: RunOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File to write; report.html in the run if absent.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a page about a run: its plan, the curves of its training, its files and its benchmark.

    The page needs no other file and no network. While a training goes on, it shows what there is.

    Example: `dirnet report runs/cifar10-resnet20`
    """
    from dirnet_convert.report.page import write_report_page
    from dirnet_convert.run import open_run

    folder = open_run(named_run(named, run))
    path = out or folder.report_path
    facts = write_report_page(folder, path)
    if json:
        print_json({"run": str(folder.path), "report": str(path), "epochs": len(facts.epochs)})
        return
    console.print(f"Report: {path}", highlight=False, soft_wrap=True, markup=False)
