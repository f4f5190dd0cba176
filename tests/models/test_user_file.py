"""A network from a person's own file, its siblings, its mistakes, and its copy."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch

from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.models.catalog import find_model
from dirnet_convert.models.user_file import load_user_factory

_SIBLING = "from torch import nn\nWIDTH = {width}\ndef conv():\n    return nn.Conv2d(3, WIDTH, 3)\n"
_NETWORK = """
from torch import nn
from my_layers import conv
from my_package.heads import head

def make(num_classes=10):
    return nn.Sequential(conv(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(num_classes))

def fixed():
    return nn.Linear(2, 3)

def no_module():
    return 7

def fails(num_classes):
    return {}["absent"]

def late():
    import not_there

class Mine(Exception):
    pass

def own_error():
    raise Mine("no such configuration")

def lazy(num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
"""
_HEAD = "from torch import nn\nfrom my_layers import WIDTH\ndef head(n):\n    return nn.Linear(WIDTH, n)\n"


def _write(folder: Path, width: int = 4) -> Path:
    (folder / "my_package").mkdir(parents=True)
    (folder / "my_layers.py").write_text(_SIBLING.format(width=width))
    (folder / "my_package" / "__init__.py").write_text("")
    (folder / "my_package" / "heads.py").write_text(_HEAD)
    (folder / "net.py").write_text(_NETWORK)
    return folder / "net.py"


def test_a_file_with_siblings_builds(tmp_path: Path) -> None:
    path = _write(tmp_path)
    before, modules = list(sys.path), set(sys.modules)
    network = find_model(f"{path}:make").build(5)
    assert network(torch.zeros(1, 3, 8, 8)).shape == (1, 5)
    assert find_model(f"{path}:make").build(None)[3].out_features == 10
    assert find_model(f"{path}:fixed").build(5).out_features == 3
    assert sys.path == before
    assert not {"my_layers", "my_package", "my_package.heads"} & (set(sys.modules) - modules)


def test_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    first, second = _write(tmp_path / "a", 4), _write(tmp_path / "b", 6)
    assert load_user_factory(f"{first}:make")(2)[0].out_channels == 4
    assert load_user_factory(f"{second}:make")(2)[0].out_channels == 6


def test_a_copy_builds_after_the_original_is_gone(tmp_path: Path) -> None:
    path = _write(tmp_path / "mine")
    reference = load_user_factory(f"{path}:make").copy_to(tmp_path / "copy")
    assert reference == "net.py:make"
    copied = {str(p.relative_to(tmp_path / "copy")) for p in (tmp_path / "copy").rglob("*.py")}
    assert copied == {"net.py", "my_layers.py", "my_package/__init__.py", "my_package/heads.py"}
    shutil.rmtree(tmp_path / "mine")
    again = load_user_factory(f"{tmp_path / 'copy'}/{reference}")
    assert again(5)(torch.zeros(1, 3, 8, 8)).shape == (1, 5)


def test_an_environment_beside_the_file_is_neither_copied_nor_unloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / ".venv" / "lib" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "an_installed_package.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(installed))
    (tmp_path / "net.py").write_text(
        "import an_installed_package\nfrom torch import nn\nmake = nn.Identity\n"
    )
    factory = load_user_factory(f"{tmp_path / 'net.py'}:make")
    assert "an_installed_package" in sys.modules
    del sys.modules["an_installed_package"]
    assert factory.files == (Path("net.py"),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("def make(:\n", "cannot be imported: SyntaxError"),
        ("import nothing_of_this_name\n", "cannot be imported: ModuleNotFoundError"),
        ("{}['x']\n", "cannot be imported: KeyError"),
        ("open('/nowhere/x')\n", "cannot be imported: FileNotFoundError"),
        ("1 / 0\n", "cannot be imported: ZeroDivisionError"),
        ("assert False\n", "cannot be imported: AssertionError"),
        ("raise Exception('not today')\n", "cannot be imported: Exception: not today"),
    ],
)
def test_a_file_that_cannot_be_imported(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "net.py").write_text(content)
    with pytest.raises(DirnetError, match=words):
        load_user_factory(f"{tmp_path / 'net.py'}:make")
    assert str(tmp_path) not in sys.path


def test_a_factory_that_is_missing_or_wrong(tmp_path: Path) -> None:
    path = _write(tmp_path)
    with pytest.raises(UsageError, match=r"has no function 'mak' .did you mean 'make'"):
        load_user_factory(f"{path}:mak")
    with pytest.raises(UsageError, match="No file"):
        load_user_factory(f"{tmp_path / 'other.py'}:make")
    for function, words in (
        ("no_module", "returns int, not a torch.nn.Module"),
        ("fails", "fails: KeyError: 'absent'"),
        ("late", "fails: ModuleNotFoundError.*at its top"),
        ("own_error", "fails: Mine: no such configuration"),
        ("lazy", "its layer '1' has no size yet; give LazyLinear"),
    ):
        with pytest.raises(DirnetError, match=words):
            load_user_factory(f"{path}:{function}")(3)
