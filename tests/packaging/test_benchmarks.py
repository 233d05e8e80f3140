"""The benchmarks: what they write, and that what they draw can be read."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.messages import Corrupt
from benchmarks.options import parse
from benchmarks.report.charts import draw_all
from benchmarks.report.style import BACKGROUNDS, colours
from benchmarks.works import QUICK, WORKS
from benchmarks.works.sharing import check_shares

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
ENOUGH = 3.0  # contrast that WCAG asks of graphics and large text


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_colour_can_be_seen(background: str) -> None:
    assert [each for each in sorted(colours()) if contrast(each, background) < ENOUGH] == []


def test_a_run_writes_results_and_charts(tmp_path: Path) -> None:
    works = (
        "1-to-1",
        "batches",
        "4-to-1",
        "latency",
        "size-8",
        "consumers-2",
        "subscribers-2",
        "backlog-1000",
        "durable",
        "records",
        "loan-1",
    )
    arguments = ["--seconds", "0.02", "--repetitions", "1", "--out", str(tmp_path)]
    arguments += [part for work in works for part in ("--work", work)]
    for rival in ("ringpost", "multiprocessing.Queue"):
        arguments += ["--only", rival]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "results.json").read_text())
    assert result["command"].startswith("python -m benchmarks --seconds 0.02")
    assert result["machine"].keys() >= {"cpu", "cores", "memory", "kernel", "python", "load_before"}
    assert result["versions"]["multiprocessing.Queue"] in result["machine"]["python"]
    for work in works:
        ours = result["works"][work]["rivals"]["ringpost"]
        assert ours["errors"] == []
        for metric in ours["metrics"].values():
            assert 0 < metric["min"] <= metric["median"] <= metric["max"]
    assert {path.name for path in tmp_path.glob("*.svg")} == {
        *("throughput.svg", "latency.svg", "overview.svg", "durable.svg", "loops.svg", "loans.svg"),
        *("scaling-size.svg", "scaling-consumers.svg", "scaling-subscribers.svg", "scaling-backlog.svg"),
    }
    said = " ".join(ElementTree.parse(tmp_path / "overview.svg").getroot().itertext())
    assert "multiprocessing.Queue" in said
    assert "4 producers to 1 consumer" in said


def test_the_published_results_still_draw(tmp_path: Path) -> None:
    published = ROOT / "benchmarks" / "results" / "published"
    result = json.loads((published / "results.json").read_text())
    drawn = draw_all(result, tmp_path)
    assert sorted(drawn) == sorted(path.name for path in published.glob("*.svg"))
    for name in drawn:
        assert ElementTree.parse(tmp_path / name).getroot().tag == f"{SVG}svg"


def test_lost_and_doubled_messages_are_noticed() -> None:
    check_shares([(0, [2, 1, 0]), (0, [0, 1, 1])], 5)
    with pytest.raises(Corrupt, match="2 of 3"):
        check_shares([(0, [2, 1, 0]), (0, [0, 0, 2])], 5)


def test_a_quick_run_is_a_part_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(QUICK) <= {work.name for work in WORKS}
    assert {work.name for work in parse(["--quick"]).works} == set(QUICK)
    assert [work.place for work in parse(["--work", "producers"]).works] == [1, 2, 4, 8, 16]
    with pytest.raises(SystemExit):
        parse(["--work", "none"])
    assert "no such work: none" in capsys.readouterr().err
