"""The verbs of the command line as Python functions, each on a run folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dirnet_convert.convert.new_run import ConvertResult, convert_to_run
from dirnet_convert.convert.rebuild import load_fp32_run, load_run
from dirnet_convert.data.source import ImageSource
from dirnet_convert.errors import UsageError
from dirnet_convert.evaluate import Accuracy, module_predictor, session_predictor
from dirnet_convert.evaluate import evaluate as evaluate_predictor
from dirnet_convert.evaluate_detection import Precision, evaluate_detector
from dirnet_convert.finetune.job import TrainResult
from dirnet_convert.finetune.observer import TrainObserver
from dirnet_convert.onnx_export.checked import CheckedExport
from dirnet_convert.onnx_export.openvino.export import (
    OpenVinoExport,
    export_openvino_checked,
    require_openvino_task,
)
from dirnet_convert.onnx_export.rest_export import verified_int8_rest
from dirnet_convert.onnx_export.run_export import verified_networks
from dirnet_convert.overrides import apply_overrides
from dirnet_convert.recipe import Recipe, Rest, Task
from dirnet_convert.recipe_choice import RecipeChanges, choose_recipe
from dirnet_convert.report.page import write_report_page
from dirnet_convert.run import RunFolder, open_run
from dirnet_convert.run_data import open_run_data
from dirnet_convert.runtime.detector import load_detector
from dirnet_convert.runtime.session import load_session
from dirnet_convert.training import finetune_run, new_pretrain_run, pretrain_run, removed_if_refused

__all__ = [
    "convert",
    "evaluate",
    "export_onnx",
    "export_openvino",
    "finetune",
    "load_detector",
    "load_session",
    "pretrain",
    "report",
]

VERIFIED_IMAGES = 8


def pretrain(
    model: str,
    data: str,
    *,
    recipe: Recipe | str | None = None,
    data_dir: Path | str | None = None,
    weights: Path | str | None = None,
    overrides: Iterable[str] = (),
    out: Path | str | None = None,
    observer: TrainObserver | None = None,
) -> tuple[RunFolder, TrainResult]:
    """Train or adapt the FP32 network ``model`` on ``data`` in a new run folder; see ``dirnet pretrain``.

    ``recipe`` is a name, a .toml file or the thing itself; if None, it is found as the command finds it.
    ``weights`` is "default", "none" or a file; if None, what the recipe says.

    Raises:
        DirnetError: what the command says in one sentence; UsageError where an argument is wrong.
    """
    changes = RecipeChanges(weights, data_dir, overrides=overrides)
    chosen, _ = choose_recipe(model, data, recipe, changes)
    folder = _path(out)
    existed = folder is not None and folder.exists()
    run = new_pretrain_run(chosen, folder)
    with removed_if_refused(run, keep_folder=existed):
        return run, pretrain_run(run, observer=observer)


def convert(
    model: str,
    data: str,
    *,
    recipe: Recipe | str | None = None,
    data_dir: Path | str | None = None,
    weights: Path | str | None = None,
    overrides: Iterable[str] = (),
    out: Path | str | None = None,
) -> ConvertResult:
    """Binarize the pretrained ``model``, calibrated on ``data``, in a new run folder; see ``dirnet convert``.

    ``recipe`` is a name, a .toml file or the thing itself; if None, it is found as the command finds it.
    ``weights`` is "default", "none" or a file; if None, what the recipe says.

    Raises:
        DirnetError: what the command says in one sentence; UsageError where an argument is wrong.
    """
    changes = RecipeChanges(weights, data_dir, overrides=overrides)
    chosen, _ = choose_recipe(model, data, recipe, changes)
    return convert_to_run(chosen, _path(out))


def finetune(
    run: RunFolder | Path | str | None = None,
    *,
    overrides: Iterable[str] = (),
    restart: bool = False,
    observer: TrainObserver | None = None,
) -> TrainResult:
    """Train the binarized network of ``run`` (the newest if None), going on where it stopped.

    Raises:
        DirnetError: what the command says in one sentence; UsageError where an argument is wrong.
    """
    folder = _run(run)
    recipe = apply_overrides(folder.read_config().recipe, overrides)
    return finetune_run(folder, recipe, restart=restart, observer=observer)


def report(run: RunFolder | Path | str | None = None, path: Path | str | None = None) -> Path:
    """Write a page about ``run`` (the newest if None) to ``path`` (report.html in it if None); return where.

    Raises:
        DirnetError: what the command says in one sentence; UsageError where an argument is wrong.
    """
    folder = _run(run)
    target = _path(path) or folder.report_path
    write_report_page(folder, target)
    return target


def export_onnx(
    run: RunFolder | Path | str | None = None,
    path: Path | str | None = None,
    images: int = VERIFIED_IMAGES,
    rest: Rest | str = Rest.FLOAT,
) -> CheckedExport:
    """Write the network of ``run`` to ONNX, verified on ``images`` real images, and its teacher to the run.

    ``rest`` says how the layers that are not binary are stored: "float" or "int8" (an ``Int8RestExport``).

    Raises:
        ExportMismatch: a file would compute something else; it names the first layer, nothing is written.
        UsageError: ``rest`` is neither, or does not fit the network.
        DirnetError: what the command says in one sentence.
    """
    folder = _run(run)
    chosen = _rest(rest)
    network = load_run(folder)
    return verified_networks(
        network.student,
        network.teacher,
        folder.read_config(),
        _images(folder),
        Path(path) if path is not None else folder.onnx_path,
        folder.teacher_onnx_path,
        verified_images=images,
        rest=chosen,
    ).write()


def export_openvino(
    run: RunFolder | Path | str | None = None,
    path: Path | str | None = None,
    images: int = VERIFIED_IMAGES,
    rest: Rest | str = Rest.FLOAT,
) -> OpenVinoExport:
    """Write the network of ``run`` for OpenVINO (.xml, .bin), verified on ``images`` real images.

    ``rest`` says how the layers that are not binary are stored: "float" or "int8".

    Raises:
        ExportMismatch: the file would compute something else; it names the first layer, nothing is written.
        UsageError: ``rest`` is neither, or OpenVINO is not installed.
        DirnetError: what the command says in one sentence.
    """
    folder = _run(run)
    config = folder.read_config()
    require_openvino_task(config)
    chosen = _rest(rest)
    source, seed = _images(folder), config.recipe.seed
    pixels = source.calibration_images(images, seed)
    file = Path(path) if path is not None else folder.openvino_path
    student = load_run(folder).student
    # OpenVINO's layers are rounded by the steps that the ONNX model was given.
    quantized = (
        verified_int8_rest(student, pixels, source, folder.onnx_path, seed=seed).model
        if chosen is Rest.INT8
        else None
    )
    return export_openvino_checked(student, pixels, file, quantized)


def evaluate(
    run: RunFolder | Path | str | None = None, *, onnx: Path | str | None = None, limit: int = 0
) -> Accuracy | Precision:
    """Measure a run's network in PyTorch, or ``onnx`` with the kernels: accuracy, or a detector's precision.

    Raises:
        DirnetError: what the command says in one sentence.
    """
    folder = _run(run)
    data, config = _images(folder), folder.read_config()
    detects = config.task is Task.DETECTION
    measure = evaluate_detector if detects else evaluate_predictor
    if onnx is not None:
        answer = (
            load_detector(onnx).predict_tensors
            if detects
            else session_predictor(load_session(onnx), data.info)
        )
        return measure(answer, data, limit=limit)
    network = load_run(folder).student if config.stage.is_binary else load_fp32_run(folder)
    with module_predictor(network) as predict:
        return measure(predict, data, limit=limit)


def _rest(rest: Rest | str) -> Rest:
    if rest not in tuple(Rest):
        raise UsageError(f"rest='{rest}' is none of {', '.join(Rest)}.")
    return Rest(rest)


def _run(run: RunFolder | Path | str | None) -> RunFolder:
    return run if isinstance(run, RunFolder) else open_run(_path(run))


def _path(path: Path | str | None) -> Path | None:
    return Path(path) if path is not None else None


def _images(run: RunFolder) -> ImageSource:
    config = run.read_config()
    return open_run_data(config)
