"""Running exported models: ONNX Runtime sessions, detectors on images, and the kernels by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dirnet_convert.runtime.detector import Detections, Detector, load_detector
    from dirnet_convert.runtime.isa import Isa, available_isas, chosen_isa
    from dirnet_convert.runtime.library import library_path
    from dirnet_convert.runtime.session import Kernels, Optimization, load_session

__all__ = [
    "Detections",
    "Detector",
    "Isa",
    "Kernels",
    "Optimization",
    "available_isas",
    "chosen_isa",
    "library_path",
    "load_detector",
    "load_session",
]

_HOMES = {
    "Detections": "detector",
    "Detector": "detector",
    "Isa": "isa",
    "available_isas": "isa",
    "chosen_isa": "isa",
    "library_path": "library",
    "load_detector": "detector",
    "Kernels": "session",
    "Optimization": "session",
    "load_session": "session",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
