"""metrics.jsonl when it is not what a training wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from dirnet_convert.errors import DirnetError
from dirnet_convert.finetune.metrics import scores_of

GOOD = b'{"epoch": 1, "test_top1_percent": 50.0}\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "missing or too short"),
        (b'{"epoch": 1, "test_top1', "missing or too short"),
        (GOOD + b'{"epoch": 2, "test_top1_perc\n', "is damaged"),
        (GOOD + b"\xff\xfe\n", "is damaged"),
        (GOOD + b"[1]\n", "is damaged"),
        (GOOD + b'{"epoch": 2}\n', "is damaged"),
    ],
)
def test_a_damaged_file_is_a_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(DirnetError, match=f"{words}.*train anew with --restart"):
        scores_of(tmp_path / "metrics.jsonl", -1, ("test_top1_percent",))


def test_lines_are_counted_from_the_end(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(GOOD + GOOD.replace(b"50", b"60"))
    assert scores_of(tmp_path / "metrics.jsonl", -2, ("test_top1_percent",)) == {"test_top1_percent": 50.0}
