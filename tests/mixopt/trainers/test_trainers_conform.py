"""The two kinds of trainers pass the suite that others' are held to; broken ones do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mixopt.testing.trainers import TrainerConformance
from mixopt.trainers.failures import TrainerError
from tests.mixopt.trainers.scripts import make_script

STEPS = """
done = int((folder / "state").read_text()) if job["resume"] else 0
for step in range(done + 1, 5):
    report(250 * step, loss=1 / step)
    (folder / "state").write_text(str(step))
    time.sleep(0.1)
finish(metrics={"loss": 1 + job["mixture"]["code"]}, mixture=job["mixture"])
"""
FUNCTION = """
def train(job, report):
    for step in range(1, 5):
        report(250 * step, {"loss": 1 / step})
    return {"loss": 1 + job.mixture["code"]}
"""


class TestCommand(TrainerConformance):
    @pytest.fixture(autouse=True)
    def _script(self, tmp_path: Path) -> None:
        make_script(tmp_path, STEPS)
        self.folder = tmp_path
        self.trainer = {"command": f"{sys.executable} train.py {{job}}"}


class TestFunction(TrainerConformance):
    trainer = "own_train:train"

    @pytest.fixture(autouse=True)
    def _module(self, tmp_path: Path) -> None:
        (tmp_path / "own_train.py").write_text(FUNCTION)
        self.folder = tmp_path


class Blind(TestCommand):
    """A script that ignores the mixture."""

    def blind(self, tmp_path: Path) -> None:
        make_script(tmp_path, STEPS.replace('1 + job["mixture"]["code"]', "1.0"))
        self.folder = tmp_path
        self.trainer = {"command": f"{sys.executable} train.py {{job}}"}


def test_a_trainer_that_ignores_the_mixture_fails_the_suite(tmp_path: Path) -> None:
    suite = Blind()
    suite.blind(tmp_path)
    with pytest.raises(AssertionError):
        suite.test_equal_jobs_give_equal_metrics_and_mixtures_matter(tmp_path)


def test_a_trainer_that_lacks_a_metric_fails_the_suite(tmp_path: Path) -> None:
    suite = Blind()
    suite.blind(tmp_path)
    make_script(tmp_path, STEPS.replace('{"loss"', '{"los"'))
    with pytest.raises(TrainerError, match="lacks loss"):
        suite.test_it_reports_on_the_way_and_ends_with_all_metrics(tmp_path)
