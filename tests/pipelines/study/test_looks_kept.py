"""A look that was taken stays taken, whatever becomes of the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixopt.core.errors import StudyError
from mixopt.pipelines.study.select import current_verdict
from mixopt.pipelines.study.session import open_session
from mixopt.selection.looks import Looks
from mixopt.study.looks_taken import keep_looks, looks_taken
from tests.pipelines.finished_study import finished_study


@pytest.mark.slow
def test_another_ledger_brings_no_look_back(tmp_path: Path) -> None:
    finished_study(tmp_path)
    file = tmp_path / "study.yaml"
    taken = Looks(1)
    taken = taken.take(taken.at("first", 0.9))
    with open_session(file) as session:
        assert looks_taken(session.ledger, session.home) is None
        keep_looks(session.ledger, session.home, taken)
    settings = f"ledger: sqlite:///{tmp_path}/other.db\nselect: {{looks: 5}}\n"
    file.write_text(file.read_text() + settings)
    with open_session(file) as session:
        assert session.ledger.looks() is None
        assert looks_taken(session.ledger, session.home) == taken
        with pytest.raises(StudyError, match="1 was fixed at the study's first look"):
            current_verdict(session)


def test_the_longer_record_counts(tmp_path: Path) -> None:
    finished_study(tmp_path)
    one = Looks(2).take(Looks(2).at("first", 0.9))
    two = one.take(one.at("second", 0.9))
    with open_session(tmp_path / "study.yaml") as session:
        keep_looks(session.ledger, session.home, one)
        session.ledger.keep_looks(two)
        assert looks_taken(session.ledger, session.home) == two
