"""Where the compiled library is, and its C interface."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import sys
from pathlib import Path

import dirnet_convert
from dirnet_convert.errors import DirnetError

_DISTRIBUTION = "dirnet-convert"
_FILE_NAMES = {"darwin": "libdirnet_ops.dylib", "win32": "dirnet_ops.dll"}
_FILE_NAME = _FILE_NAMES.get(sys.platform, "libdirnet_ops.so")


def library_path() -> Path:
    """Return the compiled library: what DIRNET_LIBRARY names, else the one installed with the package.

    Raises:
        DirnetError: there is no such file.
    """
    named = os.environ.get("DIRNET_LIBRARY")
    if named:
        path = Path(named).resolve()
        if not path.is_file():
            raise DirnetError(f"DIRNET_LIBRARY names {named}, which is no file; correct or unset it.")
        return path
    for folder in _package_folders():
        path = folder / "lib" / _FILE_NAME
        if path.is_file():
            return path.resolve()
    raise DirnetError(
        f"The compiled library {_FILE_NAME} is not installed; run `pip install .` in dirnet's source folder, "
        "or name a library that you built with DIRNET_LIBRARY."
    )


def _package_folders() -> list[Path]:
    """Return where the package lies: its own folders, then the installed one, which may be another.

    Python prefers a source folder that one stands in to what is installed; only the latter has the library.
    """
    folders = [Path(folder) for folder in dirnet_convert.__path__]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        installed = importlib.metadata.distribution(_DISTRIBUTION).locate_file(dirnet_convert.__name__)
        folders.append(Path(str(installed)))
    return folders


def c_interface() -> ctypes.CDLL:
    """Return the library loaded for ctypes, its functions declared (see kernels/include/dirnet/dirnet_c.h).

    Raises:
        DirnetError: the library is missing, or was not built for this machine.
    """
    return _load(library_path())


@functools.cache
def _load(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
        _declare(library)
    except (OSError, AttributeError) as error:
        raise DirnetError(
            f"{path} is no dirnet library for this machine ({error}); build it again."
        ) from error
    return library


def _declare(library: ctypes.CDLL) -> None:
    address, number, length = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    library.dirnet_isa_count.restype = number
    library.dirnet_isa_count.argtypes = []
    library.dirnet_isa_name.restype = ctypes.c_char_p
    library.dirnet_isa_name.argtypes = [number]
    library.dirnet_chosen_isa.restype = number
    library.dirnet_chosen_isa.argtypes = []
    library.dirnet_chosen_isa_error.restype = length
    library.dirnet_chosen_isa_error.argtypes = [ctypes.c_char_p, length]
    for function in (library.dirnet_isa_built, library.dirnet_isa_supported):
        function.restype = number
        function.argtypes = [number]
    library.dirnet_binarize.restype = number
    library.dirnet_binarize.argtypes = [number, address, length, length, address, address, number]
    library.dirnet_binary_conv2d.restype = number
    library.dirnet_binary_conv2d.argtypes = [
        *(number, address, address, ctypes.POINTER(length)),
        *(address, address, address, address, ctypes.c_float, ctypes.c_float),
        *(address, address, address, number),
    ]
    library.dirnet_binary_max_pool2d.restype = number
    library.dirnet_binary_max_pool2d.argtypes = [address, ctypes.POINTER(length), address, number]
    library.dirnet_training_built.restype = number
    library.dirnet_training_built.argtypes = [number]
    library.dirnet_sign_conv2d.restype = number
    library.dirnet_sign_conv2d.argtypes = [
        *(number, number, address, address, address, ctypes.POINTER(length)),
        *(number, address, number, address),
    ]
    library.dirnet_sign_conv2d_backward.restype = number
    library.dirnet_sign_conv2d_backward.argtypes = [
        *(number, number, address, address, address, ctypes.POINTER(length)),
        *(number, address, address, address, number, address),
    ]
    library.dirnet_norm_tail.restype = number
    library.dirnet_norm_tail.argtypes = [number, *(address,) * 4, number, address]
    library.dirnet_norm_tail_backward.restype = number
    library.dirnet_norm_tail_backward.argtypes = [number, *(address,) * 9, number, address]
    library.dirnet_run_peak.restype = length
    library.dirnet_run_peak.argtypes = [number, number, length]
