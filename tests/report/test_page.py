"""The page of a run holds what the run's files say, stands alone, and lets nothing in them be markup."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dirnet_convert.errors import DirnetError, UsageError
from dirnet_convert.recipe import ModelOptions, Recipe
from dirnet_convert.report.charts import HEIGHT, WIDTH, Chart, Line, draw_chart
from dirnet_convert.report.page import run_page
from dirnet_convert.report.read import read_run
from dirnet_convert.run import RunConfig, RunFolder

HOSTILE = "<script>alert('x')</script>&\"'"


class _Checker(HTMLParser):
    """Collects tags and texts, and sees that what opens is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _read(page: str) -> _Checker:
    checker = _Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def _row(epoch: int, **values: object) -> str:
    row = {"stage": "finetune", "epoch": epoch, "step": 10 * epoch, "train_loss": 4.0 / epoch}
    row |= {
        "label_loss": 3.0 / epoch,
        "rbd_loss": 0.0,
        "test_top1_percent": 50.0 + epoch,
        "lr": 0.1,
        "t": 0.5,
    }
    row |= {"images_per_s": 100.0, "data_wait_s": 1.5, "seconds": 60.0}
    row["receiving"] = [{"name": HOSTILE, "weights": 0.9, "inputs": 0.8 / epoch}]
    return json.dumps(row | values) + "\n"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    recipe = Recipe(title=HOSTILE, model=ModelOptions(HOSTILE))
    folder.write_config(RunConfig(recipe, 10, class_names=(HOSTILE,), versions={HOSTILE: HOSTILE}))
    folder.metrics_path.write_text(_row(1, train_loss=9.0) + _row(1) + _row(2) + _row(3) + '{"epoch": 4, "tr')
    layer = {"name": HOSTILE, "kind": "Conv2d", "shape": HOSTILE, "weights": 1234567, "macs": 5}
    layer |= {"decision": "binarize", "reason": HOSTILE, "remedy": HOSTILE}
    bits = [{"name": HOSTILE, "entropy_bits": 0.987, "share_of_ones": 0.5}]
    folder.plan_path.write_text(json.dumps({"layers": [layer], "input_bits": bits}))
    engine = {"engine": "fp32", "title": HOSTILE, "median_ms": 1.25, "times_fp32": 1.0}
    bench = {"machine": {"cpu": HOSTILE}, "isa": HOSTILE, "batch": 1, "date": "2026-01-01T00:00:00"}
    bench["results"] = [{"threads": 1, "engines": [engine]}]
    folder.bench_path.write_text(json.dumps(bench))
    folder.onnx_path.write_bytes(b"x" * 1000)
    folder.teacher_onnx_path.write_bytes(b"x" * 8000)
    return folder


def test_nothing_of_a_run_becomes_markup_and_the_page_stands_alone(run: RunFolder) -> None:
    page = run_page(read_run(run))
    read = _read(page)
    assert "script" not in read.tags
    assert not {"link", "img", "iframe", "object", "use", "a"} & set(read.tags)
    assert all(not name.startswith("on") and name not in ("href", "src") for name, _ in read.attributes)
    assert "http" not in page and "@import" not in page and "url(" not in page
    text = "".join(read.texts)
    assert text.count(HOSTILE) >= 8


def test_the_page_shows_what_the_files_say(run: RunFolder) -> None:
    facts = read_run(run)
    assert [row["epoch"] for row in facts.epochs] == [1, 2, 3] and facts.earlier_epochs == 1
    text = "".join(_read(run_page(facts)).texts)
    for words in (
        "53.00",
        "1,234,567",
        "0.987",
        "1.250",
        "8.00",
        "3.0 minutes",
        "epochs of trainings before this one: 1",
    ):
        assert words in text, words
    for words in ("Loss", "Learning rate", "Share of weights that receive gradient", "Time of an epoch"):
        assert words in text
    # A part of the loss that is left away has no curve, and the cut-off line is none.
    assert "rbd loss" not in text and "label loss" in text


def test_the_scores_are_those_of_the_epoch_that_was_kept(run: RunFolder) -> None:
    def rows() -> dict[str, str]:
        summary = run_page(read_run(run)).partition("</table>")[0]
        return dict(re.findall(r"<tr><td>([^<]+)</td><td>([^<]+)</td></tr>", summary))

    assert rows()["Epochs"] == "3" and "Kept epoch" not in rows()
    held = {"holdout_map50_percent": (40.0, 60.5, 60.5, 50.0), "holdout_map_percent": (9.0, 8.0, 7.0, 6.0)}
    lines = [
        _row(epoch, **{name: values[epoch - 1] for name, values in held.items()}) for epoch in (1, 2, 3, 4)
    ]
    run.metrics_path.write_text("".join(lines))
    found = rows()
    # Of equal ones the first, by the score that counts.
    assert found["Epochs"] == "4" and found["Kept epoch"] == "2"
    assert found["test top1, %"] == "52.00" and found["holdout map50, %"] == "60.50"


def test_openvinos_network_is_two_files(run: RunFolder) -> None:
    for suffix, size in ((".xml", 100), (".bin", 2000)):
        run.openvino_path.with_suffix(suffix).write_bytes(b"x" * size)
    found = read_run(run).file_bytes
    assert found["model.xml"] == 100 and found["model.bin"] == 2000


def test_a_run_without_any_training_has_a_page(run: RunFolder) -> None:
    for path in (run.metrics_path, run.plan_path, run.bench_path, run.onnx_path):
        path.unlink()
    text = "".join(_read(run_page(read_run(run))).texts)
    assert "Recipe" in text and "Training" not in text and "Benchmark" not in text


def test_damaged_files_are_one_sentence(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run folder"):
        read_run(RunFolder(tmp_path))
    for path, content in ((run.plan_path, "[1"), (run.bench_path, "[]"), (run.metrics_path, "nonsense\n")):
        kept = path.read_text()
        path.write_text(content)
        with pytest.raises(DirnetError, match=f"{path.name}.*remove it"):
            read_run(run)
        path.write_text(kept)


def test_points_lie_where_their_values_are() -> None:
    line = Line("a", ((1.0, 0.0), (2.0, 50.0), (3.0, 100.0)))
    figure = draw_chart(Chart("Accuracy", "%", (line,)))
    points = re.search(r'points="([^"]+)"', figure)
    assert points is not None
    (x1, y1), (x2, y2), (x3, y3) = (map(float, pair.split(",")) for pair in points.group(1).split())
    assert 0 <= x1 < x2 < x3 <= WIDTH and HEIGHT >= y1 > y2 > y3 >= 0
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2) and y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
    for tick in ("0", "20", "40", "60", "80", "100"):
        assert f">{tick}</text>" in figure


def test_decades_are_evenly_spaced_on_a_logarithmic_axis() -> None:
    line = Line("t", ((1.0, 0.1), (2.0, 1.0), (3.0, 10.0)))
    figure = draw_chart(Chart("t", "", (line,), logarithmic=True))
    points = re.search(r'points="([^"]+)"', figure)
    assert points is not None
    heights = [float(pair.split(",")[1]) for pair in points.group(1).split()]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    # Zero has no logarithm: the axis is an even one then.
    assert "<polyline" in draw_chart(
        Chart("t", "", (dataclasses.replace(line, points=((1, 0), (2, 5))),), logarithmic=True)
    )


@pytest.mark.parametrize("values", [(5.0,), (5.0, 5.0), (0.0, 0.0), (-1e-9, 1e9), (1e-300, 2e-300)])
def test_any_range_of_values_can_be_drawn(values: tuple[float, ...]) -> None:
    for logarithmic in (False, True):
        line = Line("a", tuple((float(k + 1), value) for k, value in enumerate(values)))
        figure = draw_chart(Chart("a", "", (line,), logarithmic))
        _read(figure)
        assert "nan" not in figure and "inf" not in figure
    assert draw_chart(Chart("a", "", ())) == ""


def test_many_lines_have_no_legend_of_all_names() -> None:
    lines = tuple(Line(f"layer{k}", ((1.0, k), (2.0, k))) for k in range(40))
    legend = draw_chart(Chart("a", "", lines)).partition('class="legend"')[2]
    assert "layer0" in legend and "layer39" in legend and "layer20" not in legend


def test_a_chart_of_very_many_points_has_no_dots() -> None:
    points = tuple((float(k), float(k % 7)) for k in range(1, 3002))
    figure = draw_chart(Chart("a", "", (Line("a", points),)))
    assert "<circle" not in figure and "<polyline" in figure
    assert "<circle" in draw_chart(Chart("a", "", (Line("a", points[:3000]),)))
