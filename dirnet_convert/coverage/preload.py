"""What every trial needs: imported once by the server that trials are forked from, and inherited by them."""

from __future__ import annotations

from dirnet_convert.coverage.trial import try_network
from dirnet_convert.onnx_export.trace import OPSET
from dirnet_convert.onnx_export.translations import translations

__all__ = ["try_network"]

translations(OPSET)
