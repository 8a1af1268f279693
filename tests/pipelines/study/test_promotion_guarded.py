"""Nothing is promoted that is not shown to keep to the guardrails."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mixopt.core.errors import StudyError
from mixopt.pipelines.study.run import require_guardrails
from mixopt.selection.guarded import Guarded
from mixopt.study.records import read_verdict
from tests.pipelines.finished_study import finished_study


def test_a_projection_that_breaks_a_guardrail_is_not_promoted(tmp_path: Path) -> None:
    study = finished_study(tmp_path)
    verdict = read_verdict(study.home)
    assert verdict is not None
    require_guardrails(study, verdict)  # there are none
    fine = Guarded("bpb/web", 0.02, 0.001, -0.001, 0.003, 0.01, holds=True)
    worse = Guarded("bpb/python", 0.02, 0.3, 0.2, 0.4, 1.0, holds=False)

    def guarded(*found: Guarded) -> None:
        kept = [
            dataclasses.replace(it, guarded=found) if it.name == verdict.promoted else it
            for it in verdict.candidates
        ]
        require_guardrails(study, dataclasses.replace(verdict, candidates=tuple(kept)))

    guarded(fine)
    with pytest.raises(StudyError, match=r"not shown to keep to the guardrails \(bpb/python\)"):
        guarded(fine, worse)
