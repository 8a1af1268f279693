"""A round of a search fits what it reads, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mixopt import surrogates
from mixopt.core.trial_table import TrialTable
from mixopt.pipelines.study.search import propose
from mixopt.pipelines.study.session import Session, open_session
from mixopt.study.queries import search_trials
from mixopt.surrogates.regression.linear import Linear
from tests.pipelines.finished_study import finished_study


class Counted(Linear):
    """`linear`, with the number of rows of every fit."""

    fitted: list[int] = []  # noqa: RUF012

    def fit(self, table: TrialTable) -> Counted:
        self.fitted.append(len(table))
        super().fit(table)
        return self


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A study whose search has run, with a surrogate that it names."""
    monkeypatch.setitem(surrogates.KNOWN, "counted", f"{__name__}:Counted")
    Counted.fitted.clear()
    finished_study(tmp_path)
    file = tmp_path / "study.yaml"
    file.write_text(file.read_text() + "search: {surrogate: counted, proposer: regmix}\n")
    with open_session(file) as found:
        yield found


def test_a_named_surrogate_is_fitted_once_a_round_and_held_out_never(session: Session) -> None:
    before = [
        replace(trial, spec=replace(trial.spec, fidelity=session.fidelity))
        for trial in search_trials(session.ledger.trials())
    ]
    assert propose(session, before, 1)
    assert Counted.fitted == [sum(trial.complete for trial in before)]
