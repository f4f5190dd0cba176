"""Builds the networks of a run folder again, from run.toml and the weights beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from dirnet_convert.convert.binarize_network import Binarized, binarize_network
from dirnet_convert.convert.detector import binarize_detector
from dirnet_convert.convert.trace import answer_of, serves, trace
from dirnet_convert.convert.tracer import cause_of
from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.models.catalog import ModelEntry, find_model
from dirnet_convert.models.state import Fit, load_weights, read_state, save_tensors
from dirnet_convert.recipe import Task
from dirnet_convert.run import RunConfig, RunFolder


def load_run(run: RunFolder) -> Binarized:
    """Build the student and the teacher of a converted run with their weights, in eval mode.

    Raises:
        UsageError: this is no run folder, or one of ``pretrain``, which has no binarized network.
        DirnetError: a file of the run is missing or damaged, or does not fit the network.
    """
    config = run.read_config()
    if not config.stage.is_binary:
        raise UsageError(
            f"{run.path} holds an FP32 network; binarize it first: dirnet convert {run.path} --data "
            f"{config.recipe.data.name}."
        )
    network = run_entry(run, config).build(config.classes)
    binarize = binarize_detector if config.task is Task.DETECTION else binarize_network
    built = binarize(
        network, example_image(config), config.recipe.convert, config.recipe.estimator, config.binarized
    )
    _load(built.student, run.model_path)
    _load(built.teacher, run.teacher_path)
    for module in (built.student, built.teacher, built.student_forward, built.teacher_forward):
        module.eval()
    return built


def load_fp32_run(run: RunFolder) -> nn.Module:
    """Build the FP32 network of a run of ``pretrain``, in eval mode; raises as load_run does."""
    config = run.read_config()
    network = run_entry(run, config).build(config.classes)
    _load(network, run.model_path)
    return network.eval()


def run_entry(run: RunFolder, config: RunConfig) -> ModelEntry:
    """Return the entry of a run's network; one from a person's file is read from the run's own copy."""
    return find_model(
        str(run.source_dir / config.model_source) if config.model_source else config.recipe.model.name
    )


def example_image(config: RunConfig) -> Tensor:
    """Return an image (1, C, H, W) of the size that the run's network takes."""
    return torch.zeros(1, config.channels, config.image_size, config.image_size)


def check_other_sizes(run: RunFolder, config: RunConfig, sizes: Mapping[str, int]) -> None:
    """See whether the run's network takes images of other ``sizes`` in pixels, by the option that asked.

    A graph may hold numbers that were counted from the size it was traced with, and give other values at
    another one without a word.

    Raises:
        UsageError: the network does not take such images, or its graph serves the run's size alone.
    """
    network = run_entry(run, config).build(config.classes).eval()
    graph = trace(network, example_image(config)) if config.stage.is_binary else None
    for option, size in sizes.items():
        image = torch.zeros(1, config.channels, size, size)
        try:
            answer_of(network, image)
        except DirnetError as error:
            raise UsageError(
                f"{option} is {size}, and this network does not take images of that size "
                f"({cause_of(error.__cause__ or error)}); choose another; that of the run is "
                f"{config.image_size}."
            ) from error
        if isinstance(graph, fx.GraphModule) and not serves(graph, network, image):
            raise UsageError(
                f"{option} is {size}, and the graph of this network serves images of {config.image_size} "
                "pixels alone; leave it out, or at 0."
            )


def save_state(network: nn.Module, path: Path) -> None:
    """Write the tensors of ``network`` to a .safetensors file."""
    save_tensors(network.state_dict(), path)


def _load(network: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise DirnetError(
            f"{path} is missing; the run folder is incomplete, make a new one with 'dirnet convert'."
        )
    load_weights(network, read_state(path), Fit.EXACT, str(path))
