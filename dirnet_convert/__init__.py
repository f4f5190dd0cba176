"""dirnet: binary neural networks from pretrained ones, all the way to ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

_API = ("convert", "evaluate", "export_onnx", "finetune", "load_session", "pretrain")

if TYPE_CHECKING:
    from dirnet_convert.api import convert, evaluate, export_onnx, finetune, load_session, pretrain

__all__ = ["__version__", "convert", "evaluate", "export_onnx", "finetune", "load_session", "pretrain"]


def __getattr__(name: str) -> object:
    # torch and ONNX Runtime are imported only when a verb is used, so that `import dirnet_convert` is quick.
    if name in _API:
        from dirnet_convert import api

        return getattr(api, name)
    raise AttributeError(f"module 'dirnet_convert' has no attribute '{name}'")
