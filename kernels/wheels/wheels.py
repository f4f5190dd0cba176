"""Builds the wheels for Linux on x86-64 and arm64, tags them as auditwheel finds them, and tries each.

    python kernels/wheels/wheels.py OUTPUT

The arm64 one is cross-built, and its library runs under an emulator in ONNX Runtime's own aarch64 build.
Needs auditwheel and wheel beside dirnet's own tools, g++-aarch64-linux-gnu and qemu-user.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import onnxruntime
from wheel_model import expected_output, image, write_model

from dirnet_convert.bench.arm64.artifacts import kernel_sources, runtime_library
from dirnet_convert.bench.arm64.bundle import OPERATORS, put_library
from dirnet_convert.bench.arm64.emulator import Counted, open_emulator
from dirnet_convert.bench.arm64.job import JobEngine, JobFolder, read_answer
from dirnet_convert.bench.arm64.tools import run_tool
from dirnet_convert.errors import DirnetError

ROOT = Path(__file__).parents[2]
NATIVE, ARM64 = "x86_64", "aarch64"
# The oldest system that ONNX Runtime's own wheels run on; ours may not ask for a newer one.
NEWEST_GLIBC = (2, 28)
_TAG = re.compile(r"manylinux_(\d+)_(\d+)_\w+")


def build(architecture: str, folder: Path) -> Path:
    """Build a wheel for ``architecture`` into ``folder``."""
    environment = _clean_environment()
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    if architecture != platform.machine():
        toolchain = kernel_sources() / "cmake" / f"{architecture}-linux-gnu.cmake"
        environment["CMAKE_ARGS"] = f"-DCMAKE_TOOLCHAIN_FILE={toolchain}"
        # Apart from what was built for this machine.
        pip.append(f"--config-settings=build-dir={folder / 'build'}")
    run_tool((*pip, ROOT), f"Building the {architecture} wheel", env=environment)
    (wheel,) = folder.glob("*.whl")
    # Nothing in Python's part of a wheel depends on the processor, and pip names it after this machine's.
    return _named(wheel, f"linux_{architecture}")


def tagged(wheel: Path) -> Path:
    """Give ``wheel`` the manylinux tag that auditwheel finds, and return its new file.

    Raises:
        DirnetError: it needs a newer system than ONNX Runtime's own wheels.
    """
    shown = run_tool((sys.executable, "-m", "auditwheel", "show", wheel), "auditwheel")
    found = _TAG.search(shown.replace("\n", " "))
    if found is None:
        raise DirnetError(f"auditwheel gives {wheel.name} no manylinux tag: {' '.join(shown.split())}")
    if (int(found[1]), int(found[2])) > NEWEST_GLIBC:
        raise DirnetError(f"{wheel.name} needs {found[0]}: {' '.join(shown.split())}")
    return _named(wheel, found[0])


def try_native(wheel: Path) -> None:
    """Install ``wheel`` into a new environment, and run a binary model there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "env", with_pip=True)
        python = folder / "env" / "bin" / "python"
        environment = _clean_environment()
        pip = (python, "-m", "pip", "install", "--quiet")
        runtime = (f"onnxruntime=={onnxruntime.__version__}", "numpy", "onnx")
        run_tool((*pip, *runtime), "Installing ONNX Runtime", env=environment)
        run_tool((*pip, "--no-deps", wheel), "Installing the wheel", env=environment)
        shutil.copy(ROOT / "kernels" / "wheels" / "wheel_model.py", folder)
        run_tool((python, "wheel_model.py"), f"Running {wheel.name}", cwd=folder, env=environment)


def try_emulated(wheel: Path) -> None:
    """Run a binary model with the library of the arm64 ``wheel`` under an emulator."""
    with open_emulator() as emulator, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put_library(wheel, folder / OPERATORS)
        model = write_model(folder / "model.onnx")
        (folder / "job").mkdir()
        runtime = runtime_library(onnxruntime.__version__)
        job = JobFolder(folder / "job", str(runtime), str(folder / OPERATORS))
        job.add(JobEngine("binary", model, True, {"x": image()}, ("y",)))
        job.check()
        read_answer(emulator.run(job.folder, job.close(), Counted.ALL), f"Running {wheel.name}")
        expected = expected_output()
        (output,) = job.outputs("binary", [expected.dtype])
    if output.tobytes() != expected.tobytes():
        raise DirnetError(f"{wheel.name} computes something else than it should.")


def _named(wheel: Path, platform_tag: str) -> Path:
    tags = (sys.executable, "-m", "wheel", "tags", "--remove", f"--platform-tag={platform_tag}", wheel)
    name = run_tool(tags, "Naming the wheel").strip().splitlines()[-1]
    return wheel.with_name(Path(name).name)


def _clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("DIRNET", "PYTHON"))}


def main() -> None:
    """Build, tag and try both wheels."""
    output = Path(sys.argv[1])
    output.mkdir(parents=True, exist_ok=True)
    for architecture, attempt in ((NATIVE, try_native), (ARM64, try_emulated)):
        with tempfile.TemporaryDirectory() as scratch:
            wheel = tagged(build(architecture, Path(scratch)))
            attempt(wheel)
            shutil.copy(wheel, output)
        print(f"{output / wheel.name}: built, tagged and tried")


if __name__ == "__main__":
    try:
        main()
    except (DirnetError, subprocess.SubprocessError) as error:
        sys.exit(f"Error: {error}")
