"""A metric that seeds move as much as mixtures is warned about as soon as the repeats have run."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixopt.study.reliability import study_reliability
from mixopt.study.settings import load_study
from tests.pipelines.study.noisy_study import FILE, tell_all
from tests.pipelines.whole_study import ledger_trials


@pytest.mark.parametrize(("noise", "warned"), [(20.0, True), (0.1, False)])
def test_it_is_warned_about_once_the_repeats_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], noise: float, warned: bool
) -> None:
    file = tmp_path / "noisy.yaml"
    file.write_text(FILE)
    tell_all(file, noise)
    assert "ranks mixtures badly" not in capsys.readouterr().err
    tell_all(file, noise)  # the first round: the repeats are told by now
    assert ("accuracy ranks mixtures badly" in capsys.readouterr().err) == warned
    found = study_reliability(load_study(file), ledger_trials(file))["accuracy"]
    assert (found.noise.runs, found.poor) == (4, warned)
