"""Where the compiled library is looked for, and what is said when it is not there."""

from __future__ import annotations

import importlib.metadata

import pytest

import dirnet_convert
from dirnet_convert.errors import DirnetError
from dirnet_convert.runtime import available_isas, library_path, load_session
from dirnet_convert.runtime.library import c_interface


def test_environment_variable_comes_first(monkeypatch, tmp_path):
    file = tmp_path / "mine.so"
    file.write_bytes(b"")
    monkeypatch.setenv("DIRNET_LIBRARY", str(file))
    assert library_path() == file.resolve()


def test_environment_variable_that_names_nothing_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("DIRNET_LIBRARY", str(tmp_path / "absent.so"))
    with pytest.raises(DirnetError, match=r"DIRNET_LIBRARY names .*absent\.so, which is no file"):
        library_path()


def test_missing_library_says_how_to_install_it(monkeypatch, tmp_path):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.delenv("DIRNET_LIBRARY", raising=False)
    monkeypatch.setattr(dirnet_convert, "__path__", [str(tmp_path)])
    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(DirnetError, match=r"pip install \."):
        library_path()


def test_library_beside_the_package_is_found(monkeypatch, tmp_path):
    monkeypatch.delenv("DIRNET_LIBRARY", raising=False)
    monkeypatch.setattr(dirnet_convert, "__path__", [str(tmp_path)])
    (tmp_path / "lib").mkdir()
    for name in ("libdirnet_ops.so", "libdirnet_ops.dylib", "dirnet_ops.dll"):
        (tmp_path / "lib" / name).write_bytes(b"")
    assert library_path().parent == (tmp_path / "lib").resolve()


def test_a_source_folder_takes_the_installed_library(monkeypatch, tmp_path):
    class Installed:
        def locate_file(self, name):
            return tmp_path / "site-packages" / name

    monkeypatch.delenv("DIRNET_LIBRARY", raising=False)
    monkeypatch.setattr(dirnet_convert, "__path__", [str(tmp_path / "source")])
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Installed())
    folder = tmp_path / "site-packages" / "dirnet_convert" / "lib"
    folder.mkdir(parents=True)
    for name in ("libdirnet_ops.so", "libdirnet_ops.dylib", "dirnet_ops.dll"):
        (folder / name).write_bytes(b"")
    assert library_path().parent == folder.resolve()


def test_file_that_is_no_library_is_one_sentence(monkeypatch, tmp_path, build, inputs, attributes):
    file = tmp_path / "text.so"
    file.write_text("no library")
    monkeypatch.setenv("DIRNET_LIBRARY", str(file))
    with pytest.raises(DirnetError, match=r"is no dirnet library for this machine"):
        c_interface()
    with pytest.raises(DirnetError, match=r"Cannot use .*text\.so"):
        load_session(build(inputs, attributes))


@pytest.mark.usefixtures("library")
def test_reference_and_portable_are_always_available():
    assert {"reference", "portable"} <= {str(isa) for isa in available_isas()}
