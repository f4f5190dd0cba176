"""What a source is asked for, and where its files are looked for."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from dirnet_convert.data.source import Limits, Wanted


@dataclass(frozen=True)
class Request:
    """All that opening a data set needs: ``name`` as written, ``argument`` what stood after its colon."""

    name: str
    argument: str = ""
    folder: Path | None = None
    wanted: Wanted = field(default_factory=Wanted)
    limits: Limits = field(default_factory=Limits)
    workers: int = 0
    download: bool = False


def data_folder(given: str) -> Path | None:
    """Return the folder that ``given`` or else DIRNET_DATA names; None where neither does."""
    chosen = given or os.environ.get("DIRNET_DATA", "")
    return Path(chosen).expanduser() if chosen else None


def download_requested(given: bool) -> bool:
    """Return whether downloads were asked for, by argument or by DIRNET_DOWNLOAD=1."""
    return given or os.environ.get("DIRNET_DOWNLOAD", "") in ("1", "true", "yes")
