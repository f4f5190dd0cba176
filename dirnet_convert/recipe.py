"""Recipes: every knob of convert, pretrain and finetune as a dataclass, read from TOML and written back to
it."""

from __future__ import annotations

import dataclasses
import enum
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from dirnet_convert.errors import UsageError, nearest_name


class Task(enum.StrEnum):
    """What a network answers about an image: one class, or boxes with a class each."""

    CLASSIFICATION = "classification"
    DETECTION = "detection"


class Head(enum.StrEnum):
    """What happens to the convolutions of a detector that lie behind its backbone."""

    KEEP = "keep"
    BINARIZE = "binarize"


class Rest(enum.StrEnum):
    """How an exported file stores and computes the layers that are not binary."""

    FLOAT = "float"
    INT8 = "int8"


class Shortcut(enum.StrEnum):
    """Where residual networks add: as the pretrained network does, or around every binary convolution
    (Bi-Real)."""

    ORIGINAL = "original"
    PER_CONVOLUTION = "per_convolution"


class Activation(enum.StrEnum):
    """What stands in place of a ReLU in front of a binary convolution."""

    KEEP = "keep"
    HARDTANH = "hardtanh"
    PRELU = "prelu"
    RPRELU = "rprelu"


class Threshold(enum.StrEnum):
    """How the per-channel threshold of sign() starts."""

    ZERO = "zero"
    MEDIAN = "median"


class EstimatorKind(enum.StrEnum):
    """The stand-in for sign()'s derivative."""

    STE = "ste"
    POLYNOMIAL = "polynomial"
    EDE = "ede"
    DTE = "dte"
    RESTE = "reste"


class WeightClip(enum.StrEnum):
    """Where latent weights are held after each step: nowhere, at a bound, or at a quantile of their channel's
    distribution (as ReCU)."""

    NONE = "none"
    BOUND = "bound"
    QUANTILE = "quantile"


class Attention(enum.StrEnum):
    """The map of a representation that teacher and student are compared by, and how it is normalized."""

    SUM_SQUARES = "sum_squares"
    MEAN_ABS = "mean_abs"
    MAX_NORMALIZED = "max_normalized"
    CHANNELS = "channels"


class Distance(enum.StrEnum):
    """How far two attention maps lie apart."""

    L2 = "l2"
    MEAN_SQUARE = "mean_square"
    COSINE = "cosine"


class ScheduleKind(enum.StrEnum):
    """How the learning rate falls after the warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"


class Precision(enum.StrEnum):
    """The number format of a training's convolutions; weights and the exported network are float32 always.

    AUTO is BFLOAT16 where the device has arithmetic of its own for it.
    """

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    AUTO = "auto"


class TrainArithmetic(enum.StrEnum):
    """What a binary network's training is computed with: TORCH alone, or the compiled KERNELS where they can
    (binary convolutions forward, norms with what follows); AUTO is KERNELS on processors that they suit."""

    AUTO = "auto"
    KERNELS = "kernels"
    TORCH = "torch"


class AugmentKind(enum.StrEnum):
    """What is done to training images; AUTO is FLIP_CROP for images in memory (CIFAR, digits), and
    RANDOM_RESIZED_CROP for photographs."""

    AUTO = "auto"
    NONE = "none"
    FLIP = "flip"
    FLIP_CROP = "flip_crop"
    RANDOM_RESIZED_CROP = "random_resized_crop"


@dataclass(frozen=True)
class ModelOptions:
    """Which FP32 network, and where its weights come from (``default``, ``none`` or a file)."""

    name: str = "resnet18"
    weights: str = "default"


@dataclass(frozen=True)
class DataOptions:
    """Which images, at which size, normalized how; an empty field means the data set's or the weights'
    own."""

    name: str = "cifar10"
    dir: str = ""
    image_size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    workers: int = 0
    train_limit: int = 0
    test_limit: int = 0


@dataclass(frozen=True)
class ConvertOptions:
    """Which layers are binarized and how the structure around them changes."""

    keep: tuple[str, ...] = ()
    binarize: tuple[str, ...] = ()
    shortcut: Shortcut = Shortcut.PER_CONVOLUTION
    activation: Activation = Activation.HARDTANH
    threshold: Threshold = Threshold.MEDIAN
    learn_threshold: bool = True
    balance_weights: bool = True
    scale_weights: bool = True
    calibration_images: int = 512
    head: Head = Head.KEEP


@dataclass(frozen=True)
class EstimatorOptions:
    """The backward pass of sign(): DTE's schedule of t from t_min to t_max and its share epsilon.

    ``window`` is the half-width of STE's and POLYNOMIAL's slope and where RESTE's ends; RESTE's power grows
    from 1 to ``power_max``. The ``input_`` numbers are those of inputs where they are not the same as for
    weights: 0, and -1 for epsilon, say that they are. Over the first ``gradual_weights`` and
    ``gradual_inputs`` (shares of the training) full precision fades into sign(), and over the first
    ``gradual_structure`` the pretrained network's shortcuts and activations into the binary network's.
    ``clip`` holds latent weights at ``clip_bound``, or at a quantile that moves from ``clip_tau_min`` to
    ``clip_tau_max``.
    """

    weights: EstimatorKind = EstimatorKind.DTE
    inputs: EstimatorKind = EstimatorKind.DTE
    t_min: float = 0.1
    t_max: float = 10.0
    epsilon: float = 0.1
    window: float = 1.0
    power_max: float = 3.0
    input_t_min: float = 0.0
    input_t_max: float = 0.0
    input_epsilon: float = -1.0
    input_window: float = 0.0
    gradual_weights: float = 0.0
    gradual_inputs: float = 0.0
    gradual_structure: float = 0.0
    quantile_steps: int = 100
    clip: WeightClip = WeightClip.NONE
    clip_bound: float = 1.0
    clip_tau_min: float = 0.85
    clip_tau_max: float = 0.99


@dataclass(frozen=True)
class TrainOptions:
    """One training: optimizer, schedule, augmentation, length.

    ``region_samples`` is the number of regions of an image that Faster R-CNN's box head learns from; 0 is
    torchvision's 512. ``holdout`` is the share of the training images that are kept back to choose the epoch
    whose weights stay; with 0 it is the last one. Over the first ``inputs_first`` (a share of
    the training) only inputs are binary, and weights real; then a second warm-up and fall of the rate follow.
    ``image_size`` is the edge in pixels of the training images, where it is not that of the run, at which the
    network is tested and exported. Over the first ``small_first`` (a share of the epochs) it is
    ``small_image_size`` instead. ``crop_area_min`` is the least share of an image's area that
    RANDOM_RESIZED_CROP keeps. ``norm_images`` is the number of training images on which the statistics of
    batch norms are measured again before each test; with 0 they stay those of the training's steps.
    """

    epochs: int = 12
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: ScheduleKind = ScheduleKind.COSINE
    warmup_epochs: float = 0.5
    min_lr_ratio: float = 0.0
    label_smoothing: float = 0.0
    augment: AugmentKind = AugmentKind.FLIP_CROP
    crop_area_min: float = 0.08
    clip_grad_norm: float = 0.0
    ema_decay: float = 0.0
    precision: Precision = Precision.FLOAT32
    arithmetic: TrainArithmetic = TrainArithmetic.AUTO
    compile: bool = True
    checkpoint_minutes: float = 2.0
    region_samples: int = 0
    holdout: float = 0.0
    inputs_first: float = 0.0
    image_size: int = 0
    small_image_size: int = 0
    small_first: float = 0.0
    norm_images: int = 0


@dataclass(frozen=True)
class DistillOptions:
    """What the original network teaches: labels weigh ``label_weight``, its logits and representations the
    rest.

    ``representations`` are globs over the names of modules whose outputs are compared; without any they are
    the ends of residual blocks, or what comes nearest to them. ``teacher_norm_images`` is the number of
    training images, as they are augmented, on which the statistics of the teacher's batch norms are measured
    before it teaches, and again where the images' size changes; with 0 they are those that it is tested with.
    """

    label_weight: float = 1.0
    logit_weight: float = 0.0
    temperature: float = 1.0
    rbd_weight: float = 0.0
    representations: tuple[str, ...] = ()
    attention: Attention = Attention.SUM_SQUARES
    distance: Distance = Distance.L2
    teacher_norm_images: int = 0


@dataclass(frozen=True)
class Expected:
    """An accuracy to expect at a stage, and where the figure comes from."""

    stage: str
    top1_percent: float
    source: str


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a conversion and its trainings do."""

    title: str = ""
    seed: int = 0
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    convert: ConvertOptions = field(default_factory=ConvertOptions)
    pretrain: TrainOptions = field(default_factory=TrainOptions)
    finetune: TrainOptions = field(default_factory=TrainOptions)
    estimator: EstimatorOptions = field(default_factory=EstimatorOptions)
    distill: DistillOptions = field(default_factory=DistillOptions)
    expected: tuple[Expected, ...] = ()


T = TypeVar("T")


def from_dict(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Build the dataclass ``kind`` from plain values, checking every name and type.

    Raises:
        UsageError: an unknown or missing key, or a value of the wrong type; the sentence names ``where``.
    """
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise UsageError(f"{where}: unknown key '{key}'{nearest_name(key, names)}.")
    for f in dataclasses.fields(kind):  # type: ignore[arg-type]
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and f.name not in values:
            raise UsageError(f"{where}: '{f.name}' is missing.")
    return kind(**{key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise UsageError(f"{where}: a table is expected, not {value!r}.")
        return from_dict(hint, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise UsageError(f"{where}: a table is expected, not {value!r}.")
        return dict(value)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UsageError(f"{where}: a list is expected, not {value!r}.")
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, element, where) for element in value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        try:
            return hint(value)
        except ValueError:
            known = [member.value for member in hint]
            nearest = nearest_name(str(value), known)
            raise UsageError(f"{where}: '{value}' is none of {', '.join(known)}{nearest}.") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UsageError(f"{where}: {hint.__name__} expected, not {value!r}.")
    return value


def to_dict(value: Any) -> Any:
    """Return the plain form of a dataclass that ``from_dict`` takes back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [to_dict(element) for element in value]
    if isinstance(value, dict):
        return {key: to_dict(element) for key, element in value.items()}
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raises UsageError where it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"No file {path}.") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder; a TOML file is expected.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from None


def recipe_folder() -> Path:
    """Return the folder of the recipes: inside the installed package, or at the top of a source tree."""
    package = Path(__file__).resolve().parent
    shipped = package / "recipes"
    return shipped if shipped.is_dir() else package.parent / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    return sorted(path.stem for path in recipe_folder().glob("*.toml"))


def load_recipe(name_or_path: str) -> Recipe:
    """Read a shipped recipe by name, or any TOML file by its path.

    Raises:
        UsageError: neither a shipped name nor a file, or a file with unknown keys or wrong types.
    """
    if name_or_path.endswith(".toml"):
        return from_dict(Recipe, read_toml(Path(name_or_path)), name_or_path)
    names = recipe_names()
    if name_or_path not in names:
        raise UsageError(
            f"No recipe '{name_or_path}'{nearest_name(name_or_path, names)}; "
            "'dirnet recipes' lists them, and a path must end in .toml."
        )
    path = recipe_folder() / f"{name_or_path}.toml"
    return from_dict(Recipe, read_toml(path), path.name)
