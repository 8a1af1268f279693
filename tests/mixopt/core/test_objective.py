"""The objective is a weighted mean of metrics, composed after prediction."""

from __future__ import annotations

import numpy as np
import pytest

from mixopt.core.errors import StudyError
from mixopt.core.objective import Objective


def test_a_bare_name_means_bits_per_byte_of_that_domain() -> None:
    assert Objective({"code": 1, "loss/web": 1}).metrics == ("bpb/code", "loss/web")


def test_the_value_is_the_weighted_mean() -> None:
    objective = Objective({"code": 3, "web": 1})
    assert objective.value({"bpb/code": 1.0, "bpb/web": 2.0, "else": 9.0}) == pytest.approx(1.25)


def test_a_negative_weight_asks_for_a_large_metric() -> None:
    objective = Objective({"code": 1, "accuracy/qa": -1})
    better = objective.value({"bpb/code": 1.0, "accuracy/qa": 0.9})
    assert better < objective.value({"bpb/code": 1.0, "accuracy/qa": 0.1})


def test_composing_independent_errors_adds_their_variances() -> None:
    objective = Objective({"a": 1, "b": 3})
    mean, std = objective.compose(
        np.array([[9.0, 2.0, 1.0]]), np.array([[9.0, 0.4, 0.3]]), ("bpb/x", "bpb/b", "bpb/a")
    )
    assert mean == pytest.approx([0.75 * 2 + 0.25 * 1])
    assert std == pytest.approx([np.hypot(0.75 * 0.4, 0.25 * 0.3)])


def test_errors_that_move_together_add_up_and_opposite_weights_cancel_them() -> None:
    tied = np.ones((2, 2))
    values = np.array([[1.0, 1.0]]), np.array([[0.2, 0.2]]), ("bpb/a", "bpb/b")
    assert Objective({"a": 1, "b": 1}).compose(*values, tied)[1] == pytest.approx([0.2])
    assert Objective({"a": 1, "b": -1}).compose(*values, tied)[1] == pytest.approx([0.0])


def test_an_unmeasured_metric_is_named() -> None:
    with pytest.raises(StudyError, match="'bpb/code' was not measured"):
        Objective({"code": 1}).value({"bpb/web": 1.0})


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": float("nan")}, {"a": 1, "bpb/a": 1}])
def test_weights_that_are_no_objective_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(StudyError, match="objective"):
        Objective(weights)
