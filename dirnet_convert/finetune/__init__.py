"""Training: of full-precision networks, and of binarized ones with the original network as the teacher."""

from __future__ import annotations
