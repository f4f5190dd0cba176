"""A node's name gives back the module and the call that it is named for."""

from __future__ import annotations

import pytest

from dirnet_convert.onnx_export.labels import layer_call


@pytest.mark.parametrize(
    ("name", "module", "call"),
    [
        ("layer1.0.conv1", "layer1.0.conv1", 1),
        ("layer1.0.conv1#12", "layer1.0.conv1", 12),
        ("convs.c#1", "convs.c#1", 1),
        ("convs.c#1#2", "convs.c#1", 2),
        ("convs.c#left", "convs.c#left", 1),
        ("#", "#", 1),
    ],
)
def test_a_sign_in_a_modules_name_is_no_number_of_a_call(name: str, module: str, call: int) -> None:
    assert layer_call(name) == (module, call)
