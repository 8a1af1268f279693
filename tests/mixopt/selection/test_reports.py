"""What runs show of a candidate, against figures worked out by hand."""

from __future__ import annotations

import pytest

from mixopt.selection.reports import reports
from mixopt.selection.runs import Selection
from tests.mixopt.selection.played import CANDIDATES, FIDELITY, OBJECTIVE, ran


def test_where_a_seed_is_missing_a_difference_has_students_interval_and_a_bonferroni_p() -> None:
    level = {"natural": 0.0, "recommended": -2.0, "best observed": 0.0, "uniform": 0.0}
    own = {101: -1.0, 102: 0.0, 103: 1.0}
    selection = Selection(CANDIDATES, FIDELITY, OBJECTIVE, (101, 102, 103))
    trials = [
        ran(
            k,
            spec,
            level[spec.candidate] + (own[spec.seed] if spec.candidate == "recommended" else 0),
        )
        for k, spec in enumerate(selection.next_pulls([]))
    ]
    last = max(k for k, trial in enumerate(trials) if trial.spec.candidate == "uniform")
    trials[last] = ran(last, trials[last].spec, None)
    report = reports(selection, trials)["recommended"]
    # deviation 1 over 3 seeds; t of 2 degrees of freedom is 2.9200 at .95, and at -2 * sqrt(3)
    # its distribution function is 1/2 - sqrt(12 / 14) / 2
    low, middle, high = report.difference_low, report.difference, report.difference_high
    assert low is not None
    assert middle is not None
    assert high is not None
    assert high - middle == pytest.approx(2.9200 / 3**0.5, rel=1e-4)
    assert middle - low == pytest.approx(2.9200 / 3**0.5, rel=1e-4)
    p = 0.5 - (12 / 14) ** 0.5 / 2
    assert (report.p, report.adjusted_p) == (pytest.approx(p), pytest.approx(3 * p))
