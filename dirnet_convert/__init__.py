"""dirnet: binary neural networks from pretrained ones, all the way to ONNX Runtime.

The verbs are in ``dirnet_convert.api``; importing this package alone loads no framework.
"""

from __future__ import annotations

__version__ = "0.1.0"
