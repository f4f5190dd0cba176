"""Weights from files: read safely, unwrapped, and compared with the network before anything is loaded."""

from __future__ import annotations

import enum
import pickle
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dirnet_convert.errors import DirnetError, UsageError, few
from dirnet_convert.files import DAMAGE, replacing

_PREFIXES = ("module.", "_orig_mod.")
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net")


class Fit(enum.Enum):
    """What load_weights accepts: every tensor, or a network whose head or some layers are new."""

    EXACT = "exact"
    NEW_LAYERS = "new_layers"


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors, .pth, .pt or .th file, without running code from it.

    Raises:
        UsageError: there is no such file.
        DirnetError: the file is damaged, or holds no tensors.
    """
    if not path.is_file():
        raise UsageError(f"No weights file {path}; --weights takes a file, 'default' or 'none'.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Damaged bytes may name any pickle protocol, which torch warns of before it fails.
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DirnetError(
            f"{path} is damaged, no file of weights, or holds more than tensors, which is not loaded "
            f"because it could "
            "run code; save it with torch.save(network.state_dict(), file)."
        ) from error
    except (*DAMAGE, SafetensorError) as error:
        cause = str(error).partition("\n")[0] or type(error).__name__
        raise DirnetError(f"{path} cannot be read as weights ({cause}); it may be damaged.") from error
    return _unwrap(content, path)


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    items = content.items() if isinstance(content, Mapping) else ()
    tensors = {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise DirnetError(
            f"{path} holds no state dict; save one with torch.save(network.state_dict(), file)."
        )
    return tensors


def unprefixed(state: Mapping[str, Tensor], own: Collection[str]) -> Mapping[str, Tensor]:
    """Return ``state`` without what DataParallel and torch.compile put in front of every name, where the
    network's ``own`` names do not begin so."""
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state) and not any(key.startswith(prefix) for key in own):
            return unprefixed({key.removeprefix(prefix): value for key, value in state.items()}, own)
    return state


def load_weights(network: nn.Module, state: Mapping[str, Tensor], fit: Fit, origin: str) -> list[str]:
    """Load ``state`` into ``network`` and return the names of tensors that stayed new.

    Raises:
        DirnetError: tensors are missing, unknown or of another shape; the sentence names them. With
            Fit.NEW_LAYERS missing tensors and a head of another size are allowed, but not that nothing fits.
    """
    own = network.state_dict()
    # num_batches_tracked came with torch 0.4.1; older checkpoints lack it and nothing depends on it.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unknown = [k for k in state if k not in own]
    reshaped = [k for k in own if k in state and own[k].shape != state[k].shape]
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    if fit is Fit.EXACT and (missing or unknown or reshaped):
        parts = [
            f"{word} {few(keys)}"
            for word, keys in (("missing", missing), ("unknown", unknown), ("of another shape", reshaped))
            if keys
        ]
        raise DirnetError(f"The weights of {origin} do not fit the network: {'; '.join(parts)}.")
    if not any(k.endswith("weight") for k in fitting):
        raise DirnetError(
            f"The weights of {origin} have no tensor that fits the network (they begin with "
            f"{few(list(state))}); "
            "they belong to another one."
        )
    network.load_state_dict(fitting, strict=False)
    return missing + reshaped


def save_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Write ``state`` to a .safetensors file, whole or not at all; raises DirnetError where it cannot be
    written."""
    # Tied tensors share memory, which the format refuses; each gets its own copy.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    with replacing(path) as part:
        try:
            save_file(tensors, part)
        except SafetensorError as error:
            raise DirnetError(f"Cannot write {path} ({error}); is there enough space on the disk?") from error
