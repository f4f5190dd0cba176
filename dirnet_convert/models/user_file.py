"""Networks from a person's own Python file, and a copy of that file for the run folder."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from dirnet_convert.errors import DirnetError, UsageError, nearest_name
from dirnet_convert.files import write_atomic

_MODULE_NAME = "dirnet_user_network"


@dataclass(frozen=True)
class UserFactory:
    """A factory function of a file, and the files that it needs, relative to ``folder``."""

    build: Callable[..., nn.Module]
    folder: Path
    files: tuple[Path, ...]
    reference: str

    def __call__(self, classes: int | None) -> nn.Module:
        """Build the network, with ``classes`` outputs where the factory has a parameter for it.

        Raises:
            DirnetError: the factory fails, or does not return an nn.Module whose layers all have a size.
        """
        keywords = {}
        if classes is not None and "num_classes" in inspect.signature(self.build).parameters:
            keywords["num_classes"] = classes
        with _failures_named(f"{self.reference} fails"):
            network = self.build(**keywords)
        if not isinstance(network, nn.Module):
            raise DirnetError(f"{self.reference} returns {type(network).__name__}, not a torch.nn.Module.")
        for name, module in network.named_modules():
            if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
                raise DirnetError(
                    f"{self.reference}: its layer '{name}' has no size yet; give {type(module).__name__} the "
                    f"size of its input, as {type(module).__name__.removeprefix('Lazy')} takes it."
                )
        return network

    def copy_to(self, target: Path) -> str:
        """Copy the files below ``target`` and return the reference of the factory there."""
        for file in self.files:
            write_atomic(target / file, (self.folder / file).read_bytes())
        name, _, function = Path(self.reference).name.rpartition(":")
        return f"{name}:{function}"


def load_user_factory(reference: str) -> UserFactory:
    """Load ``path/to/file.py:factory``.

    Raises:
        UsageError: the file or the factory does not exist.
        DirnetError: the file cannot be imported.
    """
    file_name, _, function = reference.rpartition(":")
    path = Path(file_name).resolve()
    if not path.is_file():
        raise UsageError(f"No file {file_name}; a network of your own is named as path/to/file.py:factory.")
    before = set(sys.modules)
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(_MODULE_NAME, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[_MODULE_NAME] = module
        importlib.invalidate_caches()
        with _failures_named(f"{file_name} cannot be imported"):
            spec.loader.exec_module(module)
        siblings = _siblings(set(sys.modules) - before - {_MODULE_NAME}, path.parent)
    finally:
        sys.path.remove(str(path.parent))
        # Two runs may carry different files of one name; each load reads its own.
        for name in _siblings(set(sys.modules) - before - {_MODULE_NAME}, path.parent):
            del sys.modules[name]
        sys.modules.pop(_MODULE_NAME, None)
    build = getattr(module, function, None)
    if not callable(build):
        functions = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UsageError(f"{file_name} has no function '{function}'{nearest_name(function, functions)}.")
    return UserFactory(build, path.parent, (Path(path.name), *sorted(siblings.values())), reference)


@contextlib.contextmanager
def _failures_named(what: str) -> Iterator[None]:
    try:
        yield
    except (DirnetError, MemoryError):
        raise
    # A person's code may raise whatever it likes, its own classes, too.
    except Exception as error:
        hint = "; import files that lie beside it at its top" if isinstance(error, ImportError) else ""
        raise DirnetError(f"{what}: {type(error).__name__}: {error}{hint}.") from error


def _siblings(names: set[str], folder: Path) -> dict[str, Path]:
    """Return those of the modules whose files lie below ``folder``, without what is installed in an
    environment there."""
    found = {}
    for name in names:
        origin = getattr(sys.modules[name], "__file__", None) or ""
        path = Path(origin).resolve()
        installed = "site-packages" in path.parts or path.is_relative_to(Path(sys.prefix).resolve())
        if origin.endswith(".py") and path.is_relative_to(folder) and not installed:
            found[name] = path.relative_to(folder)
    return found
