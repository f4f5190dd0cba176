"""What a bug report needs is there, even without the kernels' library."""

from __future__ import annotations

from pathlib import Path

import pytest

from dirnet_convert import __version__, environment
from dirnet_convert.environment import cpu_name, describe_environment, package_versions


def test_versions_name_every_package(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = package_versions()
    assert versions["dirnet"] == __version__
    assert versions["torch"][0].isdigit()
    monkeypatch.setattr(environment, "_PACKAGES", ("no-such-package",))
    assert package_versions()["no-such-package"] == "not installed"


def test_the_processor_has_a_name() -> None:
    assert cpu_name()


def test_a_library_that_cannot_be_used_is_a_fact_and_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DIRNET_LIBRARY", str(tmp_path / "missing.so"))
    facts = describe_environment()
    assert "missing.so" in facts["kernel library"]
    assert all(isinstance(value, str) for value in facts.values())
