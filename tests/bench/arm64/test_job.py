"""What a runner is told, and what it answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dirnet_convert.bench.arm64.job import JobEngine, JobFolder, read_answer
from dirnet_convert.bench.measure import MeasureOptions
from dirnet_convert.errors import DirnetError

ANSWER = """runtime 1.31.1
threads 1
round 0 fp32 4.0
round 0 binary 1.0
load 0 0.01
round 1 binary 2.0
round 1 fp32 4.0
load 1 0.02
profile fp32 a.json
threads 2
round 0 fp32 3.0
round 0 binary 1.5
"""


def test_the_answer_as_measurements() -> None:
    answer = read_answer(ANSWER + "done\n", "The runner")
    assert answer.runtime == "1.31.1"
    one, two = answer.parts
    assert (one.threads, two.threads) == (1, 2)
    assert one.profiles == {"fp32": "a.json"}
    measured = one.measurement()
    assert [timing.name for timing in measured.timings] == ["fp32", "binary"]
    assert measured.timing("binary").block_ms == (1.0, 2.0)
    assert measured.ratio("fp32", "binary") == 3.0
    assert measured.other_load == pytest.approx(0.015)
    assert two.measurement().other_load is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ANSWER, "The runner ended before it was done"),
        (ANSWER + "error no such file: x.\n", "The runner failed: no such file: x.$"),
    ],
)
def test_an_answer_that_is_none(answer: str, words: str) -> None:
    with pytest.raises(DirnetError, match=words):
        read_answer(answer, "The runner")


def test_the_job_travels_in_one_folder(tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes(b"model")
    folder = tmp_path / "job"
    folder.mkdir()
    job = JobFolder(folder, "libonnxruntime.so", "libdirnet_ops.so")
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    job.add(JobEngine("binary", model, True, {"images": image}, ("logits",)))
    job.threads(2)
    job.time(MeasureOptions(rounds=4))
    lines = job.close().read_text().splitlines()
    assert "engine binary binary.onnx dirnet" in lines
    assert "input binary images float32 input_0_0.bin 4 1 3 2 2" in lines
    assert lines[-2:] == ["threads 2", "time 4 100.0 3"]
    assert (folder / "binary.onnx").read_bytes() == b"model"
    assert np.array_equal(np.fromfile(folder / "input_0_0.bin", np.float32), image.ravel())
    with pytest.raises(DirnetError, match="names with blanks"):
        job.add(JobEngine("fp32", model, False, {"my images": image}, ("logits",)))
