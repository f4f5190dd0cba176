"""What eval and predict work on: a run folder, or an ONNX file in one or elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dirnet_convert.errors import UsageError
from dirnet_convert.recipe import DataOptions, Task
from dirnet_convert.run import RunConfig, RunFolder, open_run

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from dirnet_convert.data.source import DataInfo, ImageSource
    from dirnet_convert.evaluate import Predictor
    from dirnet_convert.evaluate_detection import DetectionPredictor
    from dirnet_convert.runtime.detector import Detector
    from dirnet_convert.runtime.session import Kernels


class EngineChoice(enum.StrEnum):
    """What computes the answers."""

    AUTO = "auto"
    KERNELS = "kernels"
    STOCK = "stock"
    TORCH = "torch"


@dataclass(frozen=True)
class Target:
    """A network to ask: ``run`` and ``config`` are None for an ONNX file that lies in no run folder."""

    run: RunFolder | None
    config: RunConfig | None
    onnx: Path | None
    engine: EngineChoice

    @property
    def path(self) -> Path:
        """The file or folder that answers."""
        return self.run.path if self.engine is EngineChoice.TORCH else self.onnx

    def is_detector(self) -> bool:
        """Tell whether the answers are boxes.

        Raises:
            DirnetError: the ONNX file is damaged.
        """
        return (self.config.task if self.config else onnx_task(self.onnx)) is Task.DETECTION

    def info(self) -> DataInfo:
        """Return what run.toml says of the images.

        Raises:
            UsageError: there is no run.toml, so that nothing is known of them.
        """
        from dirnet_convert.data.registry import test_resize
        from dirnet_convert.data.source import DataInfo

        if self.config is None:
            raise UsageError(
                f"{self.onnx} lies in no run folder: say with --data which images it was trained for."
            )
        name = self.config.recipe.data.name
        return DataInfo(
            name=name,
            classes=self.config.classes,
            class_names=self.config.class_names,
            channels=self.config.channels,
            image_size=self.config.image_size,
            mean=self.config.mean,
            std=self.config.std,
            test_resize=test_resize(name),
            task=self.config.task,
        )

    def images(self, options: DataOptions, download: bool) -> ImageSource:
        """Open the data set of ``options``, its images prepared as the run's network wants them."""
        from dirnet_convert.data.registry import open_data
        from dirnet_convert.run_data import open_run_data

        if self.config is not None:
            return open_run_data(self.config, options, download=download)
        return open_data(options, image_size=onnx_image_size(self.onnx), download=download)

    def data_options(self, name: str | None, folder: Path | None, image_size: int | None) -> DataOptions:
        """Return the run's data options with what the command line says instead.

        Raises:
            UsageError: neither the run nor the command line names a data set.
        """
        if name is None and self.config is None:
            raise UsageError(f"{self.onnx} lies in no run folder: name the images with --data.")
        from dirnet_convert.run_data import placed

        own = self.config.recipe.data if self.config else DataOptions()
        # Another data set lies elsewhere, has its own limits and is normalized for this network all the same.
        changed = dataclasses.replace(own, name=name, dir="", train_limit=0, test_limit=0) if name else own
        if folder is not None:
            changed = dataclasses.replace(changed, dir=str(folder)) if name else placed(changed, folder)
        if image_size is not None:
            changed = dataclasses.replace(changed, image_size=image_size)
        return changed

    @contextlib.contextmanager
    def predictor(self, info: DataInfo) -> Iterator[Predictor | DetectionPredictor]:
        """Yield what turns images (N, C, H, W) into logits, or a detector's into boxes, labels and scores.

        Raises:
            UsageError: the model does not take images as ``info`` says.
        """
        from dirnet_convert.evaluate import module_predictor, session_predictor

        if self.engine is EngineChoice.TORCH:
            self._check_size(info)
            with module_predictor(self._network()) as predict:
                yield predict
        elif info.task is Task.DETECTION:
            with self.detector() as detector:
                size = (detector.info.height, detector.info.width)
                if size != (info.image_size, info.image_size):
                    raise UsageError(
                        f"{self.onnx} takes images of {size[0]}x{size[1]}, but data '{info.name}' gives "
                        f"{info.image_size}x{info.image_size}; --image-size changes their size."
                    )
                yield detector.predict_tensors
        else:
            from dirnet_convert.runtime.session import load_session

            yield session_predictor(load_session(self.onnx, kernels=self._kernels()), info)

    @contextlib.contextmanager
    def detector(self) -> Iterator[Detector]:
        """Yield what finds the objects of an image.

        Raises:
            UsageError: the file is no detector.
        """
        from dirnet_convert.runtime.detector import Detector, load_detector

        if self.engine is not EngineChoice.TORCH:
            yield load_detector(self.onnx, kernels=self._kernels())
            return
        import torch

        from dirnet_convert.evaluate import module_predictor
        from dirnet_convert.onnx_export.run_export import detector_info
        from dirnet_convert.runtime.detector import OUTPUT_NAMES

        with module_predictor(self._network()) as predict:

            def answer(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
                (found,) = predict(torch.from_numpy(pixels))
                return tuple(found[name].numpy() for name in OUTPUT_NAMES)

            yield Detector(answer, detector_info(self.config))

    def _check_size(self, info: DataInfo) -> None:
        from dirnet_convert.convert.rebuild import check_other_sizes

        if info.task is Task.CLASSIFICATION and info.image_size != self.config.image_size:
            check_other_sizes(self.run, self.config, {"--image-size": info.image_size})

    def _network(self) -> nn.Module:
        from dirnet_convert.convert.rebuild import load_fp32_run, load_run

        return load_run(self.run).student if self.config.stage.is_binary else load_fp32_run(self.run)

    def _kernels(self) -> Kernels:
        from dirnet_convert.runtime.session import Kernels

        return Kernels.STOCK if self.engine is EngineChoice.STOCK else Kernels.DIRNET


def find_target(path: Path | None, engine: EngineChoice) -> Target:
    """Return the run folder or ONNX file at ``path``, or the newest run; AUTO prefers a current ONNX file.

    Raises:
        UsageError: there is no such thing, or it does not have what ``engine`` needs.
    """
    if path is not None and path.suffix == ".onnx":
        if not path.is_file():
            raise UsageError(f"No file {path}; export a run with 'dirnet export' to make one.")
        if engine is EngineChoice.TORCH:
            raise UsageError(f"{path} is an ONNX file; the engine torch needs its run folder.")
        chosen = EngineChoice.KERNELS if engine is EngineChoice.AUTO else engine
        run = RunFolder(path.parent)
        if run.config_path.is_file():
            return Target(run, run.read_config(), path, chosen)
        return Target(None, None, path, chosen)
    run = open_run(path)
    config = run.read_config()
    if engine is EngineChoice.AUTO:
        engine = EngineChoice.KERNELS if _is_current(run) else EngineChoice.TORCH
    if engine is not EngineChoice.TORCH and not run.onnx_path.is_file():
        raise UsageError(
            f"{run.path} has no {run.onnx_path.name}; make it with 'dirnet export', or use --engine torch."
        )
    return Target(run, config, run.onnx_path if run.onnx_path.is_file() else None, engine)


def onnx_image_size(path: Path | None) -> int:
    """Return the edge in pixels of the images that an ONNX file takes, 0 where it leaves that open.

    Raises:
        DirnetError: the file is damaged.
    """
    if path is None:
        return 0
    from dirnet_convert.runtime.model_file import read_model

    entries = read_model(path).graph.input
    sizes = entries[0].type.tensor_type.shape.dim if entries else ()
    return sizes[2].dim_value if len(sizes) == 4 else 0


def onnx_task(path: Path) -> Task:
    """Return what an ONNX file is for, as it says itself.

    Raises:
        DirnetError: the file is damaged.
    """
    from dirnet_convert.runtime.detector import DETECTION_TASK, TASK_KEY
    from dirnet_convert.runtime.model_file import read_model

    said = {entry.key: entry.value for entry in read_model(path).metadata_props}
    return Task.DETECTION if said.get(TASK_KEY) == DETECTION_TASK else Task.CLASSIFICATION


def _is_current(run: RunFolder) -> bool:
    # A model exported before the last training would be answered for by older weights.
    if not run.onnx_path.is_file():
        return False
    return run.onnx_path.stat().st_mtime_ns >= run.model_path.stat().st_mtime_ns
