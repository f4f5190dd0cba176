"""What eval and predict work on: a run folder, or an ONNX file in one or elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.recipe import DataOptions
from dirnet_convert.run import RunConfig, RunFolder, open_run

if TYPE_CHECKING:
    from dirnet_convert.data.source import DataInfo, ImageSource
    from dirnet_convert.evaluate import Predictor


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
        )

    def images(self, options: DataOptions, download: bool) -> ImageSource:
        """Open the data set of ``options``, its images prepared as the run's network wants them."""
        from dirnet_convert.data.registry import open_data

        if self.config is not None:
            config = self.config
            return open_data(
                options, image_size=config.image_size, mean=config.mean, std=config.std, download=download
            )
        return open_data(options, image_size=onnx_image_size(self.onnx), download=download)

    def data_options(self, name: str | None, folder: Path | None, image_size: int | None) -> DataOptions:
        """Return the run's data options with what the command line says instead.

        Raises:
            UsageError: neither the run nor the command line names a data set.
        """
        if name is None and self.config is None:
            raise UsageError(f"{self.onnx} lies in no run folder: name the images with --data.")
        own = self.config.recipe.data if self.config else DataOptions()
        # Another data set lies elsewhere, has its own limits and is normalized for this network all the same.
        changed = dataclasses.replace(own, name=name, dir="", train_limit=0, test_limit=0) if name else own
        if folder is not None:
            changed = dataclasses.replace(changed, dir=str(folder))
        if image_size is not None:
            changed = dataclasses.replace(changed, image_size=image_size)
        return changed

    @contextlib.contextmanager
    def predictor(self, info: DataInfo) -> Iterator[Predictor]:
        """Yield what turns images (N, C, H, W) into logits."""
        from dirnet_convert.evaluate import module_predictor, session_predictor

        if self.engine is EngineChoice.TORCH:
            from dirnet_convert.convert.rebuild import load_fp32_run, load_run

            binary = self.config.stage.is_binary
            network = load_run(self.run).student if binary else load_fp32_run(self.run)
            with module_predictor(network) as predict:
                yield predict
            return
        from dirnet_convert.runtime.session import Kernels, load_session

        kernels = Kernels.STOCK if self.engine is EngineChoice.STOCK else Kernels.DIRNET
        yield session_predictor(load_session(self.onnx, kernels=kernels), info)


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
    import onnx
    from google.protobuf.message import DecodeError

    if path is None:
        return 0
    try:
        entries = onnx.load(str(path), load_external_data=False).graph.input
    except DecodeError as error:
        raise DirnetError(f"{path} is damaged or no ONNX file; make it anew with 'dirnet export'.") from error
    sizes = entries[0].type.tensor_type.shape.dim if entries else ()
    return sizes[2].dim_value if len(sizes) == 4 else 0


def _is_current(run: RunFolder) -> bool:
    # A model exported before the last training would be answered for by older weights.
    if not run.onnx_path.is_file():
        return False
    return run.onnx_path.stat().st_mtime_ns >= run.model_path.stat().st_mtime_ns
