"""Weights are read without running code, and what does not fit is named."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.models.state import Fit, load_weights, read_state, unprefixed


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


Wrap = Callable[[dict[str, torch.Tensor]], object]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}, "best_prec1": 91.7},
        lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
        lambda s: {**s, "epoch": 3, 5: torch.zeros(1)},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrappers_and_prefixes_are_taken_off(
    tmp_path: Path, generator: torch.Generator, wrap: Wrap, zipped: bool
) -> None:
    state = _network().state_dict()
    path = tmp_path / "w.pth"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=zipped)
    read = unprefixed(read_state(path), state)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[k], state[k]) for k in state)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_the_networks_own_stay(prefix: str) -> None:
    wrapped = {f"module.{k}": v for k, v in _network().state_dict().items()}
    assert unprefixed(wrapped, wrapped) == wrapped
    plain = _network().state_dict()
    assert unprefixed({f"{prefix}{k}": v for k, v in plain.items()}, plain).keys() == plain.keys()


def test_safetensors_are_read(tmp_path: Path, generator: torch.Generator) -> None:
    state = _network().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    read = read_state(tmp_path / "w.safetensors")
    assert all(torch.equal(read[k], state[k]) for k in state)


class _RunsCode:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, zipped: bool) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "evil.pth"
    torch.save({"a.weight": torch.ones(1), "x": _RunsCode(mark)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DirnetError, match="not loaded because it could run code"):
        read_state(path)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello, this is no file of weights\n" * 9, bytes(range(256))])
def test_files_of_something_else_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DirnetError, match=name) as caught:
        read_state(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damaged_files_are_an_error_or_read_never_a_crash(tmp_path: Path, kind: str) -> None:
    seed = 7
    print(f"seed {seed}")
    choose = random.Random(seed)
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    state = {"a.weight": torch.ones(3, 3), "b": torch.zeros(2)}
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(choose.choice([1, 3, 8])):
            damaged[choose.randrange(len(damaged))] = choose.randrange(256)
        if choose.random() < 0.3:
            del damaged[choose.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        try:
            assert all(isinstance(v, torch.Tensor) for v in read_state(path).values())
        except DirnetError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("content", [[torch.ones(1)], {"epoch": 3}, {0: torch.ones(1)}, torch.ones(2), {}])
def test_a_file_without_a_state_dict_is_named(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(DirnetError, match="holds no state dict"):
        read_state(tmp_path / "w.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(UsageError, match="No weights file"):
            read_state(path)


def test_every_kind_of_misfit_is_named(generator: torch.Generator) -> None:
    state = _network().state_dict()
    del state["0.weight"]
    state["4.extra"] = torch.zeros(1)
    state["3.bias"] = torch.zeros(5)
    network = _network()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(DirnetError, match=r"missing 0\.weight; unknown 4\.extra; of another shape 3\.bias"):
        load_weights(network, state, Fit.EXACT, "w.pth")
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_long_lists_of_names_are_cut() -> None:
    with pytest.raises(DirnetError, match="and 3 more"):
        load_weights(_network(), {"0.weight": torch.zeros(4, 3, 3, 3)}, Fit.EXACT, "w.pth")


def test_old_checkpoints_without_batch_counts_fit(generator: torch.Generator) -> None:
    state = {k: v for k, v in _network().state_dict().items() if not k.endswith("num_batches_tracked")}
    network = _network()
    assert load_weights(network, state, Fit.EXACT, "w.pth") == []
    assert torch.equal(network[0].weight, state["0.weight"])


def test_new_layers_are_allowed_where_asked_and_named(generator: torch.Generator) -> None:
    state = _network().state_dict()
    state["3.weight"], state["3.bias"] = torch.zeros(7, 4), torch.zeros(7)
    network = _network()
    assert load_weights(network, state, Fit.NEW_LAYERS, "w.pth") == ["3.weight", "3.bias"]
    assert torch.equal(network[0].weight, state["0.weight"])
    with pytest.raises(DirnetError, match="belong to another one"):
        load_weights(network, {"conv.weight": torch.ones(1)}, Fit.NEW_LAYERS, "w.pth")
