"""What no trial should have to make anew: the server that trials are forked from imports this once."""

from __future__ import annotations

from dirnet_convert.onnx_export.trace import OPSET
from dirnet_convert.onnx_export.translations import translations

translations(OPSET)
