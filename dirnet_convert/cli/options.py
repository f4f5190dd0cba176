"""Option types that several commands share, and the errors' way out."""

from __future__ import annotations

import errno
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from dirnet_convert.errors import DirnetError, UsageError

if TYPE_CHECKING:
    from dirnet_convert.recipe import Recipe
    from dirnet_convert.run import RunFolder

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


def run_of_model(model: str) -> RunFolder | None:
    """Return the run folder that a MODEL names, or None where it is a network's name.

    Raises:
        UsageError: it is the path of a folder that is no run, or not there.
    """
    from dirnet_convert.run import RunFolder

    folder = Path(model)
    if (folder / "run.toml").is_file():
        return RunFolder(folder)
    # A folder here may have the name of a network; with a slash in it, a folder is meant.
    if len(folder.parts) == 1 or ":" in model or folder.suffix == ".py":
        return None
    if folder.is_dir():
        raise UsageError(f"{model} is not a run folder (it has no run.toml); name a run or a network.")
    raise UsageError(f"There is no run folder {model}; check the path.")


def refuse_options(run: str, options: dict[str, object]) -> None:
    """Refuse options that a run decides by itself; raises UsageError where one is given."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{run} is a run, which has its own {name}; leave the option away.")


def lasting_path(path: Path) -> str:
    """Return ``path`` as a run keeps it: absolute, so that later commands find it from any folder."""
    return str(path.expanduser().resolve())


def _lasting_name(data: str) -> str:
    kind, _, folder = data.partition(":")
    found = kind == "folder" and folder and Path(folder).expanduser().is_dir()
    return f"folder:{lasting_path(Path(folder))}" if found else data


def chosen_recipe(
    model: str | None,
    data: str | None,
    *,
    recipe: str | None,
    weights: str | None,
    data_dir: Path | None,
    image_size: int | None,
    seed: int | None,
    overrides: list[str] | None,
) -> tuple[Recipe, str]:
    """Return the recipe that the arguments make, and the name of the one it began with ('' for none).

    Without --recipe, the shipped one of this data set and network serves where there is one; a run of
    pretrain brings its own.
    """
    import dataclasses

    from dirnet_convert.overrides import apply_overrides
    from dirnet_convert.recipe import Recipe, load_recipe, recipe_names

    name = recipe or ""
    source = run_of_model(model) if model is not None else None
    trained = source.read_config().recipe if source is not None else None
    # A data set's own form of a network goes without its name in the recipe's: cifar10-resnet18.
    own = f"{data}-{model.removeprefix('timm:').removeprefix('cifar_')}" if model and data else ""
    if not name and trained is None and own in recipe_names():
        name = own
    result = load_recipe(name) if name else trained or Recipe()
    if not name and trained is None and data is None:
        raise UsageError(
            "Which images? Name them with --data (cifar10, digits, imagenet, folder:DIR), or a --recipe."
        )
    if model is not None:
        result = dataclasses.replace(result, model=dataclasses.replace(result.model, name=model))
    if weights is not None:
        result = dataclasses.replace(result, model=dataclasses.replace(result.model, weights=weights))
    fields: dict[str, Any] = {}
    if data is not None:
        fields["name"] = _lasting_name(data)
    if data_dir is not None:
        fields["dir"] = lasting_path(data_dir)
    if image_size is not None:
        fields["image_size"] = image_size
    result = dataclasses.replace(result, data=dataclasses.replace(result.data, **fields))
    if seed is not None:
        result = dataclasses.replace(result, seed=seed)
    return apply_overrides(result, overrides or []), name or (f"that of {model}" if trained else "")
