"""``python -m dirnet_convert`` is the command ``dirnet``."""

from __future__ import annotations

from dirnet_convert.cli.main import run

run()
