"""Objectives are said with the names of the file, or with as much of one as tells it."""

from __future__ import annotations

import numpy as np
import pytest

from mixopt.core.errors import StudyError
from mixopt.offline.objective_words import higher_is_better, objective_of, refuse_mixed_scales

LOSSES = ("metric/arxiv_loss", "metric/pile_cc_loss", "bpb")


@pytest.mark.parametrize(
    "name", ["arc_easy/acc", "pass@1", "gsm8k_exact_match", "score", "f1", "eval.accuracy"]
)
def test_scores_are_known_by_their_names(name: str) -> None:
    assert higher_is_better(name)


@pytest.mark.parametrize("name", ["loss", "mmlu_acc_bpb", "error", "accent", "passage", "arxiv"])
def test_losses_and_what_only_looks_like_a_score_are_not(name: str) -> None:
    assert not higher_is_better(name)


def test_without_being_asked_the_objective_is_the_mean_under_the_names_of_the_file() -> None:
    objective, notes = objective_of((), LOSSES)
    assert objective.weights == pytest.approx(dict.fromkeys(LOSSES, 1 / 3))
    assert "mean of all metrics" in notes[0]


def test_scores_count_negatively_and_it_is_said() -> None:
    objective, notes = objective_of((), ("loss", "qa_acc"))
    assert objective.weights == {"loss": 0.5, "qa_acc": -0.5}
    assert "Minimised: loss. Maximised (scores, by their names or the layout): qa_acc." in notes[0]
    objective, notes = objective_of((), ("metric_bbh", "metric_drop"), layout="admire")
    assert set(objective.weights.values()) == {-0.5}
    assert "Minimised" not in notes[0]
    assert "Maximised (scores, by their names or the layout): metric_bbh, metric_drop" in notes[0]


def test_weights_are_taken_as_asked() -> None:
    objective, notes = objective_of(("arxiv_loss=3", "bpb"), LOSSES)
    assert objective.weights == {"metric/arxiv_loss": 0.75, "bpb": 0.25}
    assert notes == ["Minimised (as asked): metric/arxiv_loss, bpb."]


def test_a_score_that_is_to_be_small_is_taken_as_asked_but_remarked() -> None:
    objective, notes = objective_of(("qa_acc=1",), ("qa_acc",))
    assert objective.weights == {"qa_acc": 1.0}
    assert "negative weight" in notes[1]


def test_a_name_may_hold_an_equals_sign() -> None:
    objective, _ = objective_of(("loss@k=5=2",), ("loss@k=5", "loss@k=1"))
    assert objective.metrics == ("loss@k=5",)


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ("_loss=1", "could be metric/arxiv_loss, metric/pile_cc_loss"),
        ("arxvi_loss=1", "metric/arxiv_loss"),
        ("=1", "no metric"),
        ("bpb=much", "'much' is not a weight"),
        ("bpb=nan", "'nan' is not a weight"),
    ],
)
def test_what_is_not_understood_is_an_error_that_names_choices(asked: str, what: str) -> None:
    with pytest.raises(StudyError, match=what):
        objective_of((asked,), LOSSES)


def test_a_metric_is_not_to_be_weighed_twice() -> None:
    with pytest.raises(StudyError, match="named twice"):
        objective_of(("bpb=1", "bpb=2"), LOSSES)


def test_a_mean_over_metrics_of_other_scales_is_refused_with_their_names() -> None:
    values = np.array([[3.1, 3600.0], [3.3, 3700.0], [2.9, 3500.0], [3.0, np.nan]])
    with pytest.raises(StudyError) as caught:
        refuse_mixed_scales(("web_loss", "run time"), values)
    message = str(caught.value)
    assert "'run time' is about 3600" in message
    assert "--objective web_loss=1" in message


@pytest.mark.parametrize(
    "other",
    [[31.0, 33.0, 29.0], [3600.0, 3600.0, 3600.0], [300.0, 300.1, 299.9], [np.nan] * 3],
    ids=["ten times larger", "constant", "large but of the same spread", "never measured"],
)
def test_a_mean_that_no_single_metric_rules_is_kept(other: list[float]) -> None:
    refuse_mixed_scales(("a", "b"), np.array([[3.1, 3.3, 2.9], other]).T)
