"""ONNX Runtime sessions with dirnet's operators registered, and errors in one sentence."""

from __future__ import annotations

import enum
import mmap
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.runtime.isa import Isa, available_isas
from dirnet_convert.runtime.library import library_path

if TYPE_CHECKING:
    import onnxruntime

# The domain of the operators, which a model that uses them names.
_DOMAIN = b"ai.dirnet"
# The session's own choice of instruction set; kernels/onnxruntime/register.cc reads it.
_ISA_KEY = "dirnet.isa"
# ONNX Runtime writes "[ONNXRuntimeError] : 1 : FAIL : ..." and where in its sources the error arose.
_ERROR_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : (?:Exception during initialization: )?")
_SOURCE_PLACE = re.compile(r"(?:/|[A-Z]:\\)\S+\.(?:cc|h|cpp):\d+\s+(?:\S.*?\)(?: const)?\s)?")


class Kernels(enum.Enum):
    """What runs the binary operators."""

    DIRNET = "dirnet"
    """The compiled kernels."""
    STOCK = "stock"
    """ONNX Runtime's own operators, through the function bodies in the model."""


class Optimization(enum.Enum):
    """How far ONNX Runtime may rewrite the graph."""

    NONE = "none"
    ALL = "all"


def load_session(
    path: Path | str | bytes,
    *,
    threads: int | None = None,
    kernels: Kernels = Kernels.DIRNET,
    isa: Isa | str | None = None,
    optimization: Optimization = Optimization.ALL,
    profile_prefix: Path | str | None = None,
    optimized_model: Path | str | None = None,
) -> onnxruntime.InferenceSession:
    """Open a model (a file, or its bytes) on the CPU with the binary operators ready to run.

    ``threads`` is the number of ONNX Runtime's threads (all cores where None); ``isa`` chooses an instruction
    set for this session alone, stronger than DIRNET_ISA; ``profile_prefix`` begins the name of a profile that
    ``end_profiling`` writes; ``optimized_model`` is where the rewritten graph is written for inspection.

    Raises:
        UsageError: the file does not exist, or an argument does not fit.
        DirnetError: the library is missing, ``isa`` or DIRNET_ISA cannot be obeyed, or the model is damaged.
    """
    import onnxruntime

    if threads is not None and threads < 1:
        raise UsageError(f"The number of threads must be at least 1, not {threads}.")
    if isa is not None and kernels is Kernels.STOCK:
        raise UsageError("An ISA can be chosen for dirnet's kernels alone; leave it out with stock kernels.")
    name = "the model" if isinstance(path, bytes) else str(path)
    if not isinstance(path, bytes) and not Path(path).is_file():
        raise UsageError(f"There is no model file {path}; check the path.")

    options = onnxruntime.SessionOptions()
    # A failure is raised here as one sentence; the same text on stderr would only repeat it.
    options.log_severity_level = 4
    if threads is not None:
        options.intra_op_num_threads = threads
    if optimization is Optimization.NONE:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    if optimized_model is not None:
        options.optimized_model_filepath = str(optimized_model)
    if kernels is Kernels.DIRNET:
        _register(options, isa)
    elif _has_bodies(path):
        # They make thousands of nodes, and the planner of buffers compares each tensor with all free ones,
        # most of the time to load a large network. Without it a run takes as long and as much memory.
        options.enable_mem_reuse = False
    source = path if isinstance(path, bytes) else str(path)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except _runtime_errors() as error:
        raise DirnetError(f"Cannot load {name}: {_sentence(error)}.") from error


def _has_bodies(model: Path | str | bytes) -> bool:
    """Tell whether a model may use the operators; what cannot be read is left to ONNX Runtime to report."""
    if isinstance(model, bytes):
        return _DOMAIN in model
    try:
        with Path(model).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(_DOMAIN) >= 0
    except (OSError, ValueError):
        return False


def _register(options: onnxruntime.SessionOptions, isa: Isa | str | None) -> None:
    library = library_path()
    if isa is not None:
        available = [str(item) for item in available_isas()]
        if str(isa) not in available:
            raise UsageError(
                f"ISA '{isa}' is unknown or not available here; choose from {', '.join(available)}."
            )
        options.add_session_config_entry(_ISA_KEY, str(isa))
    try:
        options.register_custom_ops_library(str(library))
    except _runtime_errors() as error:
        raise DirnetError(f"Cannot use {library}: {_sentence(error)}.") from error


def _runtime_errors() -> tuple[type[Exception], ...]:
    # ONNX Runtime has one class of exception for each status code, with nothing but Exception in common.
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    classes = (item for item in vars(state).values() if isinstance(item, type))
    return (*(item for item in classes if issubclass(item, Exception)), RuntimeError, ValueError)


def _sentence(error: Exception) -> str:
    """Return ONNX Runtime's reason without its codes, source places and line ends."""
    text = _ERROR_PREFIX.sub("", str(error))
    text = _SOURCE_PLACE.sub("", text)
    return " ".join(text.split()).rstrip(".")
