"""The report of a study by a trainer of the user's: its metrics are no domains."""

from __future__ import annotations

import re

import pytest

from mixopt.pipelines.study.elsewhere import ask_trials
from mixopt.pipelines.views.report import write_report
from mixopt.study.measured import measured_metrics
from mixopt.study.records import read_verdict
from mixopt.study.settings import load_study
from mixopt.study.snapshot import read_snapshot
from tests.pipelines.study.noisy_study import FILE, tell_all

pytestmark = pytest.mark.slow  # its search and selection take 15 seconds
METRICS = "metrics: {accuracy: higher}"
MORE = "metrics: {accuracy: higher, solved: higher}\nguardrails: {solved: 1%, loss: 20%}"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a study whose selected mixture, with more maths, gains in `solved` and pays in `loss`."""
    file = tmp_path_factory.mktemp("own") / "noisy.yaml"
    file.write_text(FILE.replace(METRICS, MORE).replace("seeds: 2", "seeds: 4"))
    for _ in range(3):  # the design, the round, the selection
        tell_all(file, 0.05, {"solved": 10.0, "loss": 1.0})
    ask_trials(file, 100, file.parent / "nothing.csv")  # which decides
    study = load_study(file)
    verdict = read_verdict(study.home)
    assert verdict is not None
    assert verdict.improved
    found = {
        m.metric: m.differences[verdict.promoted] for m in measured_metrics(read_snapshot(study))
    }
    assert [(name, it.better, it.worse) for name, it in found.items()] == [
        ("accuracy", True, False),
        ("solved", True, False),
        ("loss", False, True),
    ]
    return write_report(study).read_text()


def test_its_words_are_of_metrics(page: str) -> None:
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert "Results by metric" in headings
    assert "Results by domain" not in headings
    assert "What does it cost in other metrics?" in page
    assert "other domains" not in page


def test_all_its_metrics_are_compared_each_in_its_direction(page: str) -> None:
    said = re.search(
        r"<dt>What does it cost in other metrics\?</dt><dd><b>(.*?)</b>(.*?)</dd>", page
    )
    assert said is not None
    assert said[1] == "1 of 2 get worse"
    assert re.search(r"Worse: loss \+\S+ %; better: solved \+\S+ %", said[2])


def test_effects_have_the_signs_that_people_read(page: str) -> None:
    """More maths raises the accuracy, which is shown once: as the metric, not as an objective."""
    table = page[page.index("Effects of domains</h2>") :]
    head = re.findall(r"<th[^>]*>(?:<[^>]+>)*([^<]+)", table[: table.index("</thead>")])
    assert head == ["domain", "accuracy", "solved", "loss"]
    first = table[table.index("<tbody>") :].split("</tr>")[0]
    assert re.search(r"maths.*?\+1\.\d+", first, re.DOTALL)
