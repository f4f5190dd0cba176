"""What this machine is: versions, processor, instruction sets, library of kernels."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from dirnet_convert import __version__
from dirnet_convert.errors import DirnetError

_CPU_INFO = Path("/proc/cpuinfo")
_BOARD = Path("/sys/firmware/devicetree/base/model")
_PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "onnxscript", "numpy")


def cpu_name() -> str:
    """Return the processor's name as the system gives it, or else the architecture."""
    fields = {}
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    if fields.get("model name"):
        return fields["model name"]
    board = _BOARD.read_text(errors="replace").strip("\0\n ") if _BOARD.is_file() else ""
    part = f"CPU part {fields['CPU part']}" if fields.get("CPU part") else ""
    return ", ".join(text for text in (board, part) if text) or platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return the number of logical processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def package_versions(extra: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the versions of dirnet, Python and the packages that results depend on, ``extra`` ones too."""
    versions = {"dirnet": __version__, "python": platform.python_version()}
    for package in (*_PACKAGES, *extra):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def describe_environment() -> dict[str, str]:
    """Return names and values for a bug report."""
    from dirnet_convert.runtime.isa import available_isas, chosen_isa
    from dirnet_convert.runtime.library import library_path

    facts = package_versions() | {
        "system": platform.platform(),
        "processor": cpu_name(),
        "cores": str(usable_cores()),
    }
    try:
        facts["kernel library"] = str(library_path())
        facts["instruction sets"] = ", ".join(str(isa) for isa in available_isas())
        facts["in use"] = str(chosen_isa())
    except DirnetError as error:
        facts["kernel library"] = str(error)
    return facts
