"""Build, verify, and only then write: an OpenVINO file at its path has been compared with PyTorch."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
from torch import Tensor, nn

from dirnet_convert.errors import UsageError
from dirnet_convert.files import replacing, write_atomic
from dirnet_convert.onnx_export.openvino.build import BuiltModel, build
from dirnet_convert.onnx_export.openvino.quantize import input_steps
from dirnet_convert.onnx_export.openvino.verify import OpenVinoReport, verify_openvino
from dirnet_convert.onnx_export.verify_report import Tolerances
from dirnet_convert.recipe import Task
from dirnet_convert.run import RunConfig
from dirnet_convert.runtime.openvino import require_openvino

_WEIGHTS_SUFFIX = ".bin"
# Bytes are 1/255 of a range apart, and the errors of a few layers in INT8 add up.
INT8_TOLERANCES = Tolerances(rounding=0.2, flipped_share=0.05)


@dataclass(frozen=True)
class OpenVinoExport:
    """The written graph with its weights beside it, their size together, and how close it is to PyTorch."""

    path: Path
    file_bytes: int
    report: OpenVinoReport


def require_openvino_task(config: RunConfig) -> None:
    """Do nothing where a run's network can become an OpenVINO model.

    Raises:
        UsageError: openvino is not installed, or the run's network is a detector.
    """
    if config.task is not Task.CLASSIFICATION:
        raise UsageError("OpenVINO models are written of classifiers only; a detector runs in ONNX Runtime.")
    require_openvino()


def export_openvino_checked(
    student: nn.Module, images: Tensor, path: Path, *, tolerances: Tolerances | None = None
) -> OpenVinoExport:
    """Write ``student`` to ``path`` (.xml) and its weights beside it, compared on ``images`` (N, C, H, W).

    Raises:
        ExportMismatch: the model differs; ``path`` is untouched.
        UsageError: openvino is not installed, or ``path`` does not end in .xml.
        DirnetError: PyTorch or OpenVINO cannot take the network, or the folder cannot be written.
    """
    if path.suffix != ".xml":
        raise UsageError(f"An OpenVINO model is a file .xml with its .bin beside it, not '{path.name}'.")
    built = build(student, images[:1].detach().cpu().float())
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / path.name
        _save(built, part)
        report = verify_openvino(student, part, built.layers, images, tolerances)
        graph, weights = part.read_bytes(), part.with_suffix(_WEIGHTS_SUFFIX).read_bytes()
    with replacing(path.with_suffix(_WEIGHTS_SUFFIX)) as held:
        held.write_bytes(weights)
        # The old graph goes before its weights do: it never stands beside those of another one.
        path.unlink(missing_ok=True)
    write_atomic(path, graph)
    return OpenVinoExport(path, len(graph) + len(weights), report)


def write_openvino_int8(student: nn.Module, images: Tensor, exported: onnx.ModelProto, path: Path) -> None:
    """Write ``student`` to ``path`` (.xml) with the INT8 layers of ``exported``, rounded by the same steps.

    Compared with PyTorch on ``images`` (N, C, H, W), which follows OpenVINO's bits from layer to layer, so
    that what is seen of INT8 is its own rounding and not what becomes of a turned bit.

    Raises:
        ExportMismatch: the model differs by more than INT8 rounds.
        UsageError: openvino is not installed.
        DirnetError: PyTorch or OpenVINO cannot take the network.
    """
    built = build(student, images[:1].detach().cpu().float(), input_steps(exported))
    _save(built, path)
    verify_openvino(student, path, built.layers, images, INT8_TOLERANCES)


def _save(built: BuiltModel, path: Path) -> None:
    require_openvino().save_model(built.model, path, compress_to_fp16=False)
