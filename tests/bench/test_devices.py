"""Which way a benchmark takes to its device."""

from __future__ import annotations

import pytest

from dirnet_convert.bench.devices import Device, Way, choose_way
from dirnet_convert.errors import UsageError


@pytest.mark.parametrize(
    ("device", "ssh", "adb", "architecture", "way"),
    [
        (Device.CPU, "", False, "riscv64", Way.NATIVE),
        (Device.ARM64, "", False, "aarch64", Way.NATIVE),
        (Device.ARM64, "", False, "arm64", Way.NATIVE),
        (Device.ARM64, "pi@board", False, "x86_64", Way.SSH),
        (Device.ARM64, "pi@board", False, "aarch64", Way.SSH),
        (Device.ARM64, "", True, "x86_64", Way.ADB),
        (Device.ARM64, "", False, "x86_64", Way.EMULATED),
    ],
)
def test_the_way(
    monkeypatch: pytest.MonkeyPatch, device: Device, ssh: str, adb: bool, architecture: str, way: Way
) -> None:
    monkeypatch.setattr("dirnet_convert.bench.devices.missing_tools", lambda _names: ())
    assert choose_way(device, ssh, adb, architecture) is way


def test_no_way_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dirnet_convert.bench.devices.missing_tools", lambda names: tuple(names[:2]))
    with pytest.raises(UsageError) as caught:
        choose_way(Device.ARM64, architecture="x86_64")
    sentence = str(caught.value)
    for words in ("is x86_64, not arm64", "on an arm64 machine itself", "--ssh USER@HOST", "--adb"):
        assert words in sentence
    assert "apt install qemu-user g++-aarch64-linux-gnu" in sentence


@pytest.mark.parametrize(
    ("device", "ssh", "adb", "words"),
    [
        (Device.CPU, "pi@board", False, "add --device arm64"),
        (Device.CPU, "", True, "add --device arm64"),
        (Device.ARM64, "pi@board", True, "two machines"),
    ],
)
def test_contradictions(device: Device, ssh: str, adb: bool, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        choose_way(device, ssh, adb, "x86_64")
