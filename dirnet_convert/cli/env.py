"""dirnet env: versions, instruction sets and the kernels' library, for bug reports."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from dirnet_convert.cli.options import JsonOption, console, print_json


def command(json: JsonOption = False) -> None:
    """Print versions, the processor's instruction sets and the library of kernels in use.

    Example: `dirnet env`
    """
    from dirnet_convert.environment import describe_environment

    facts = describe_environment()
    if json:
        print_json(facts)
        return
    table = Table.grid(padding=(0, 2))
    table.add_column()
    # A path is of use as a whole alone.
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, escape(str(value)))
    console.print(table)
