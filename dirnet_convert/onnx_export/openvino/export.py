"""Build, verify, and only then write: an OpenVINO file at its path has been compared with PyTorch."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
from torch import Tensor, nn

from dirnet_convert.errors import UsageError
from dirnet_convert.files import replacing, write_atomic
from dirnet_convert.onnx_export.openvino.build import build
from dirnet_convert.onnx_export.openvino.quantize import input_steps
from dirnet_convert.onnx_export.openvino.verify import OpenVinoReport, verify_openvino
from dirnet_convert.onnx_export.verify_report import Tolerances
from dirnet_convert.recipe import Task
from dirnet_convert.run import RunConfig
from dirnet_convert.runtime.openvino import require_openvino

_GRAPH_SUFFIX, _WEIGHTS_SUFFIX = ".xml", ".bin"
# Bytes are 1/255 of a range apart, and the errors of a few layers in INT8 add up.
_INT8_TOLERANCES = Tolerances(rounding=0.2, flipped_share=0.05)


@dataclass(frozen=True)
class OpenVinoExport:
    """The written graph with its weights beside it, their size together, and how close it is to PyTorch.

    ``int8_layers`` counts the layers beside the binary ones that multiply bytes.
    """

    path: Path
    file_bytes: int
    report: OpenVinoReport
    int8_layers: int


@dataclass(frozen=True)
class VerifiedOpenVino:
    """An OpenVINO model that was compared with PyTorch and is not written yet."""

    graph: bytes
    weights: bytes
    told: OpenVinoExport

    def write(self) -> OpenVinoExport:
        """Write the graph and its weights, never one beside another's.

        Raises:
            DirnetError: the folder cannot be written.
        """
        path = self.told.path
        with replacing(path.with_suffix(_WEIGHTS_SUFFIX)) as held:
            held.write_bytes(self.weights)
            # The old graph goes before its weights do: it never stands beside those of another one.
            path.unlink(missing_ok=True)
        write_atomic(path, self.graph)
        return self.told


def require_openvino_task(config: RunConfig) -> None:
    """Do nothing where a run's network can become an OpenVINO model.

    Raises:
        UsageError: openvino is not installed, or the run's network is a detector.
    """
    if config.task is not Task.CLASSIFICATION:
        raise UsageError("OpenVINO models are written of classifiers only; a detector runs in ONNX Runtime.")
    require_openvino()


def export_openvino_checked(
    student: nn.Module, images: Tensor, path: Path, exported: onnx.ModelProto | None = None
) -> OpenVinoExport:
    """Write ``student`` to ``path`` (.xml) and its weights beside it, compared on ``images`` (N, C, H, W).

    Where ``exported`` has INT8 layers, so has the file; see ``verified_openvino``.

    Raises:
        ExportMismatch: the model differs; ``path`` is untouched.
        UsageError: openvino is not installed, or ``path`` does not end in .xml.
        DirnetError: PyTorch or OpenVINO cannot take the network, or the folder cannot be written.
    """
    return verified_openvino(student, images, path, exported).write()


def verified_openvino(
    student: nn.Module, images: Tensor, path: Path, exported: onnx.ModelProto | None = None
) -> VerifiedOpenVino:
    """Return ``student`` for ``path`` (.xml), compared with PyTorch on ``images`` (N, C, H, W).

    The INT8 layers of ``exported``, the same network as an ONNX model, are rounded by the same steps. PyTorch
    follows OpenVINO's bits from layer to layer, so that what is seen of INT8 is its own rounding and not what
    becomes of a turned bit.

    Raises:
        ExportMismatch: the model differs, by more than INT8 rounds where it has INT8 layers.
        UsageError: openvino is not installed, or ``path`` does not end in .xml.
        DirnetError: PyTorch or OpenVINO cannot take the network.
    """
    if path.suffix != _GRAPH_SUFFIX:
        raise UsageError(f"An OpenVINO model is a file .xml with its .bin beside it, not '{path.name}'.")
    steps = input_steps(exported) if exported is not None else {}
    built = build(student, images[:1].detach().cpu().float(), steps)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / path.name
        require_openvino().save_model(built.model, part, compress_to_fp16=False)
        tolerances = _INT8_TOLERANCES if built.int8_layers else Tolerances()
        report = verify_openvino(student, part, built.layers, images, tolerances)
        graph, weights = part.read_bytes(), part.with_suffix(_WEIGHTS_SUFFIX).read_bytes()
    told = OpenVinoExport(path, len(graph) + len(weights), report, built.int8_layers)
    return VerifiedOpenVino(graph, weights, told)
