"""A run as one page of HTML: its plan, its curves, its files and its benchmark."""

from __future__ import annotations
