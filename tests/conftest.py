"""What every test may use: a seeded generator, a folder for runs, and the real data."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

from dirnet_convert.errors import DirnetError
from dirnet_convert.runtime import library_path

_NETWORKS = "test_sweep.py"
SEED = int(os.environ.get("DIRNET_TEST_SEED", "20240917"))


# First, since pytest-xdist reads the groups in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In each of several processes, keep a file's tests together where they share the work, for they share
    fixtures; the many networks of one file, which share nothing, may go anywhere."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        if item.path.name != _NETWORKS:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
    # The longest first and single networks before the short ones, so that all processes end together.
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in long, item.path.name == _NETWORKS))


@pytest.fixture(autouse=True)
def runs_below_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let no test write runs anywhere but below its own folder; return that folder."""
    root = tmp_path / "runs"
    monkeypatch.setenv("DIRNET_RUNS", str(root))
    return root


@pytest.fixture
def generator() -> torch.Generator:
    """Return a seeded generator; the seed (DIRNET_TEST_SEED) is printed, so that a failure can be
    repeated."""
    print(f"seed {SEED}")
    torch.manual_seed(SEED)
    return torch.Generator().manual_seed(SEED)


@pytest.fixture(scope="session")
def real_data_root() -> Path:
    """Return the folder of real images and weights; skip where it is missing, but fail in CI, where it must
    be."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("DIRNET_TEST_DATA", default))
    if root.is_dir():
        return root
    _missing(f"no real data at {root}; set DIRNET_TEST_DATA")


@pytest.fixture(scope="session")
def library() -> Path:
    """Return the compiled library of kernels; skip where it is not built, but fail in CI."""
    try:
        return library_path()
    except DirnetError as error:
        _missing(str(error))


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason} (in CI nothing may skip for it)")
    pytest.skip(reason)


@pytest.fixture
def voc_folder(voc_folder_once: Path, tmp_path: Path) -> Path:
    """Return a copy of ``voc_folder_once`` that the test may change."""
    return Path(shutil.copytree(voc_folder_once, tmp_path / "squares"))


@pytest.fixture(scope="session")
def voc_folder_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in VOC's form: 6 training and 3 test images, a bright and a dark square on each."""
    root = tmp_path_factory.mktemp("voc") / "squares"
    noise = np.random.default_rng(SEED)
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    for name, count in (("train", 6), ("test", 3)):
        stems = [f"{name}{k}" for k in range(count)]
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(stems))
        for k, stem in enumerate(stems):
            grey = noise.normal(128, 40, (60, 80)).clip(0, 255).astype(np.uint8)
            image = Image.fromarray(grey).convert("RGB")
            nodes = ""
            for label, shade, left, top in (("bright", 255, 4 + 5 * k, 4), ("dark", 0, 40, 5 + 3 * k)):
                image.paste((shade,) * 3, (left, top, left + 24, top + 24))
                nodes += (
                    f"<object><name>{label}</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
                    f"<xmax>{left + 24}</xmax><ymax>{top + 24}</ymax></bndbox></object>"
                )
            image.save(root / "JPEGImages" / f"{stem}.jpg")
            (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{nodes}</annotation>")
    return root
