"""The examples of the pages on operators and on conventions run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dirnet_convert.onnx_export.operators import OPERATORS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["operators.md", "binary-conventions.md"])
def test_examples_run(page):
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    exec(compile("\n".join(blocks), page, "exec"), {})


def test_every_operator_has_a_section_and_its_signature():
    text = (DOCS / "operators.md").read_text()
    for spec in OPERATORS.values():
        assert f"\n## {spec.name}, version 1\n" in text
        row = next(line for line in text.splitlines() if line.startswith(f"| {spec.name} |"))
        _, _, inputs, outputs, _, _ = row.split("|")
        named = [re.findall(r"\w+", re.sub(r"\([^)]*\)+|float", "", cell)) for cell in (inputs, outputs)]
        assert named == [list(spec.input_names()), list(spec.output_names())]
