"""The command line: one file per command, registered here."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from dirnet_convert import __version__
from dirnet_convert.cli import (
    bench,
    convert,
    demo,
    env,
    eval,
    export,
    finetune,
    inspect,
    predict,
    pretrain,
    recipes,
    report,
)
from dirnet_convert.cli.options import plain_errors

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Binarize a pretrained network, fine-tune it, export it to ONNX and run it with binary kernels.",
    rich_markup_mode="markdown",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"dirnet {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for _name, _module in {
    "convert": convert,
    "finetune": finetune,
    "export": export,
    "bench": bench,
    "pretrain": pretrain,
    "eval": eval,
    "predict": predict,
    "inspect": inspect,
    "report": report,
    "recipes": recipes,
    "env": env,
    "demo": demo,
}.items():
    app.command(_name)(plain_errors(_module.command))


def run() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe of an old encoding gets question marks, and not a failure.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()
