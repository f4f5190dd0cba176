"""Option types that several commands share, and the errors' way out."""

from __future__ import annotations

import errno
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from dirnet_convert.errors import DirnetError, UsageError

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="torchvision name, timm:NAME, resnet20, vgg_small, path/to/file.py:factory, or a run's folder.",
        show_default=False,
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="cifar10, cifar100, digits, imagenet or folder:DIR; for detectors voc or coco.",
        show_default=False,
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where the data lies (or DIRNET_DATA).", show_default=False),
]
WeightsOption = Annotated[
    str | None,
    typer.Option("--weights", help="'default', 'none', or a .safetensors/.pth file.", show_default=False),
]
RecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", help="A recipe's name ('dirnet recipes') or a .toml file.", show_default=False),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one knob, e.g. finetune.lr=0.05.", show_default=False
    ),
]
_RUN_HELP = "Run folder; the newest one below runs/ if absent."
RunArgument = Annotated[Path | None, typer.Argument(metavar="[RUN]", help=_RUN_HELP, show_default=False)]
RunOption = Annotated[Path | None, typer.Option("--run", metavar="RUN", help=_RUN_HELP, show_default=False)]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder of the new run; runs/DATA-MODEL-TIME if absent.", show_default=False),
]
KeepOption = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="GLOB",
        help="Layers that stay in float, as in 'layer4.*'; may be given several times.",
        show_default=False,
    ),
]
BinarizeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--binarize",
        metavar="GLOB",
        help="Layers to make binary though they would be kept; may be given several times.",
        show_default=False,
    ),
]
ImageSizeOption = Annotated[
    int | None,
    typer.Option(
        "--image-size",
        min=1,
        help="Edge of the images, pixels; the weights' own if absent.",
        show_default=False,
    ),
]
DownloadOption = Annotated[bool, typer.Option("--download", help="Allow downloading the data set.")]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Seed of everything random.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]

# A shell's code for a program that Ctrl-C ended.
INTERRUPTED = 130
_NO_MEMORY = "Not enough memory; smaller images or batches need less."

console = Console()
error_console = Console(stderr=True)


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Make ``command`` end what a person can cause with one sentence on standard error and an exit code.

    Usage errors exit with 2, other failures with 1, Ctrl-C with 130.
    """

    @functools.wraps(command)
    def guarded(*args: Any, **keywords: Any) -> None:
        try:
            command(*args, **keywords)
        except DirnetError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("Interrupted.", INTERRUPTED)
        except BrokenPipeError:
            # The reader of the output went away, as `head` does: click ends the program quietly.
            raise
        except OSError as error:
            _fail(*_system_failure(error))
        except MemoryError:
            _fail(_NO_MEMORY, 1)
        except RuntimeError as error:
            # torch has its own class for an accelerator's memory, and none for the processor's.
            if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
                _fail(_NO_MEMORY, 1)
            raise

    return guarded


def _system_failure(error: OSError) -> tuple[str, int]:
    """Return the sentence and the exit code for a failure that no command expected."""
    name = error.filename if error.filename is not None else "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "No space left on the disk; free some and run the command again.", 1
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return f"No permission for {name}; choose a place that you may use.", 1
    if isinstance(error, FileNotFoundError):
        return f"There is no {name}; check the path.", 2
    if isinstance(error, IsADirectoryError):
        return f"{name} is a folder where a file is expected; check the path.", 2
    if isinstance(error, NotADirectoryError):
        return f"{name} is a file where a folder is expected; check the path.", 2
    reason = error.strerror or str(error) or type(error).__name__
    return f"The system refuses: {reason}{f' ({error.filename})' if error.filename is not None else ''}.", 1


def _fail(sentence: str, code: int) -> NoReturn:
    if code != INTERRUPTED:
        error_console.print("Error: ", style="bold red", end="")
    error_console.print(sentence, highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(code) from None


def print_json(value: Any) -> None:
    """Print ``value`` as JSON on standard output."""
    typer.echo(json.dumps(value, indent=1))


def named_run(argument: Path | None, option: Path | None) -> Path | None:
    """Return the run folder that is named, as an argument or with --run, or None where none is.

    Raises:
        UsageError: it is named twice.
    """
    if argument is not None and option is not None:
        raise UsageError("Name the run once, as an argument or with --run.")
    return argument or option


def refuse_options(run: str, options: dict[str, object]) -> None:
    """Refuse options that a run decides by itself; raises UsageError where one is given."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{run} is a run, which has its own {name}; leave the option away.")
