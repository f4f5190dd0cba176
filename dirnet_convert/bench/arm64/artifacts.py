"""What runs on arm64: the kernels and the runner, cross-built, and ONNX Runtime's own build."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dirnet_convert
from dirnet_convert.bench.arm64.tools import (
    CMAKE,
    CROSS_COMPILER,
    HOST_COMPILER,
    NINJA,
    find_tool,
    require_tool,
    run_tool,
)
from dirnet_convert.errors import DirnetError

LIBRARY_VARIABLE = "DIRNET_ARM64_LIBRARY"
_LIBRARY = "libdirnet_ops.so"
_RUNNER = "dirnet_runner"
_COUNTER = "libdirnet_count.so"
_PURPOSE = "Building the arm64 kernels"
# From the newest to the oldest C library that ONNX Runtime's wheels were ever built for.
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64")
# The C and C++ runtimes that the runner and ONNX Runtime need, and the loader that finds them.
LOADER = "ld-linux-aarch64.so.1"
_SYSTEM_LIBRARIES = (
    LOADER,
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "librt.so.1",
    "libpthread.so.0",
    "libgcc_s.so.1",
    "libstdc++.so.6",
)


@dataclass(frozen=True)
class Arm64Build:
    """Programs for 64-bit ARM Linux: the operator library and the runner."""

    library: Path
    runner: Path


def cache_folder() -> Path:
    """Return where downloads and builds for arm64 are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dirnet" / "arm64"


def kernel_sources() -> Path:
    """Return the folder of the kernels' C++ sources: the installed one, or that of a source folder.

    Raises:
        DirnetError: there is none.
    """
    package = Path(dirnet_convert.__file__).parent
    for folder in (package / "kernels", package.parent / "kernels"):
        if (folder / "CMakeLists.txt").is_file():
            return folder
    raise DirnetError(
        "The kernels' sources are not installed; run this in dirnet's source folder, or name a library "
        f"built for arm64 with {LIBRARY_VARIABLE}."
    )


def arm64_library() -> Path:
    """Return the operator library for arm64: what DIRNET_ARM64_LIBRARY names, else cross-built.

    Raises:
        DirnetError: the named file is missing, or the library cannot be built.
    """
    named = os.environ.get(LIBRARY_VARIABLE)
    if not named:
        return arm64_build().library
    if not Path(named).is_file():
        raise DirnetError(f"{LIBRARY_VARIABLE} names {named}, which is no file; correct or unset it.")
    return Path(named).resolve()


def arm64_build() -> Arm64Build:
    """Return the operator library and the runner, built once for each state of the sources.

    Raises:
        DirnetError: a tool is missing, or the compiler refuses.
    """
    sources = kernel_sources()
    folder = _kept(f"kernels-{_digest(sources)}", lambda part: _cross_build(sources, part))
    return Arm64Build(folder / _LIBRARY, folder / _RUNNER)


def counting_plugin() -> Path:
    """Return the emulator's plugin that counts instructions, built for this machine.

    Raises:
        DirnetError: there is no C compiler, or it refuses.
    """
    source = kernel_sources() / "runner" / "count_instructions.c"

    def build(part: Path) -> None:
        compiler = require_tool(HOST_COMPILER, "Counting instructions")
        flags = ("-O2", "-shared", "-fPIC", "-fvisibility=hidden")
        run_tool((compiler, *flags, source, "-o", part / _COUNTER), "Building the instruction counter")

    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    return _kept(f"counter-{digest}", build) / _COUNTER


def runtime_library(version: str) -> Path:
    """Return libonnxruntime of ONNX Runtime's own aarch64 wheel, downloaded once for each version.

    Raises:
        DirnetError: pip cannot fetch the wheel.
    """
    folder = _kept(f"onnxruntime-{version}", lambda part: _fetch_runtime(version, part))
    (library,) = folder.glob("libonnxruntime.so.*")
    return library


def system_libraries() -> tuple[Path, ...]:
    """Return the cross compiler's C and C++ runtimes for arm64, the loader first.

    Raises:
        DirnetError: the cross compiler or one of the libraries is missing.
    """
    compiler = require_tool(CROSS_COMPILER, _PURPOSE)
    found = []
    for name in _SYSTEM_LIBRARIES:
        path = Path(run_tool((compiler, f"-print-file-name={name}"), "Asking the cross compiler").strip())
        if not path.is_absolute():
            raise DirnetError(f"The cross compiler has no {name}; apt install libc6-arm64-cross.")
        found.append(path.resolve())
    return tuple(found)


def system_library_names() -> tuple[str, ...]:
    """Return the names under which system_libraries() are looked for, in the same order."""
    return _SYSTEM_LIBRARIES


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "tests" not in path.relative_to(folder).parts:
            total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return total.hexdigest()[:16]


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder ``name`` of the cache, which ``make`` fills beside it where there is none."""
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder.parent))
    except OSError as error:
        raise DirnetError(
            f"Cannot write to {folder.parent}: {error.strerror}; set XDG_CACHE_HOME to a folder that you may "
            "write to."
        ) from error
    try:
        make(part)
        # Another process may have been faster; its folder holds the same.
        with contextlib.suppress(OSError):
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _cross_build(sources: Path, part: Path) -> None:
    cmake = require_tool(CMAKE, _PURPOSE)
    require_tool(CROSS_COMPILER, _PURPOSE)
    ninja = find_tool(NINJA)
    generator = ("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}") if ninja else ()
    toolchain = sources / "cmake" / "aarch64-linux-gnu.cmake"
    with tempfile.TemporaryDirectory() as scratch:
        options = ("-DDIRNET_BUILD_RUNNER=ON", f"-DCMAKE_TOOLCHAIN_FILE={toolchain}")
        run_tool((cmake, *generator, "-S", sources, "-B", scratch, *options), _PURPOSE)
        targets = ("--target", "dirnet_ops", "dirnet_runner")
        run_tool((cmake, "--build", scratch, "--parallel", *targets), _PURPOSE)
        shutil.copy2(Path(scratch) / _LIBRARY, part)
        shutil.copy2(Path(scratch) / "runner" / _RUNNER, part)


def _fetch_runtime(version: str, part: Path) -> None:
    tags = [f"--platform={platform}" for platform in _PLATFORMS]
    python = f"--python-version={sys.version_info.major}.{sys.version_info.minor}"
    with tempfile.TemporaryDirectory() as scratch:
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
        try:
            run_tool((*pip, python, *tags, "--dest", scratch, f"onnxruntime=={version}"), "pip download")
        except DirnetError as error:
            raise DirnetError(
                f"ONNX Runtime {version} for aarch64 cannot be fetched (no network, or no wheel): {error}"
            ) from error
        (wheel,) = Path(scratch).glob("onnxruntime-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if Path(name).name.startswith("libonnxruntime.so."):
                    (part / Path(name).name).write_bytes(archive.read(name))
