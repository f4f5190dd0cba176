"""Small made-up data sets, and where the real ones are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FolderMaker = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_data_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DIRNET_DATA", "DIRNET_DOWNLOAD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make_folder(tmp_path: Path) -> FolderMaker:
    """Return a function that writes ``count`` small photographs per class below ``root``/split."""

    def make(classes: tuple[str, ...], splits: tuple[str, ...] = ("train", "val"), count: int = 6) -> Path:
        root = tmp_path / "images"
        generator = np.random.default_rng(0)
        for split in splits:
            for number, name in enumerate(classes):
                folder = root / split / name
                folder.mkdir(parents=True)
                for k in range(count):
                    pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                    pixels[:, :, 0] = 40 * number
                    Image.fromarray(pixels).save(folder / f"{k}.png")
        return root

    return make
