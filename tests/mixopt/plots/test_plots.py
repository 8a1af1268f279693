"""Figures hold the numbers they are given, and nothing to draw is no error."""

from __future__ import annotations

import dataclasses

import numpy as np
import plotly.graph_objects as go
import pytest

from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import (
    Cost,
    CurvePoint,
    Fidelity,
    Role,
    State,
    Trial,
    TrialResult,
    TrialSpec,
)
from mixopt.offline.best_so_far import Reference
from mixopt.plots import mixtures, search, selection, surrogate
from mixopt.plots import promotion as promoted
from mixopt.selection.band import Place
from mixopt.selection.results import Candidate, Predicted
from mixopt.study.watched import Compared
from tests.pipelines.finished_study import promotion_of

OBJECTIVE = Objective({"law": 1.0})
VALUES = (1.9, 1.7, 1.8, 1.6)
LAW = Mixture.of({"law": 1})
FOUND = Candidate("found", LAW, 4, 1.6, 0.0163, (1.58, 1.6, 1.62, 1.6))
CANDIDATES = (
    FOUND,
    Candidate("natural", LAW, 4, 1.8, 0.0163, (1.78, 1.8, 1.82, 1.8)),
    Candidate("stopped early", LAW),
)


def trial(number: int, value: float, role: Role = Role.DESIGN) -> Trial:
    mixture = Mixture.of({"law": 1 + number, "code": 4 - number})
    result = TrialResult({"bpb/law": value}, (), Cost(100, 2.0, 1e6))
    spec = TrialSpec(mixture, Fidelity("proxy", 10, 100), 0, role)
    return Trial(number, spec, State.COMPLETE, result)


TRIALS = [trial(number, value) for number, value in enumerate(VALUES)]


def named(figure: go.Figure, name: str) -> go.Scatter:
    return next(t for t in figure.data if t.name == name)


@pytest.mark.parametrize(("against", "step"), [("tokens", 100), ("device_seconds", 2.0)])
def test_best_so_far_never_rises_and_sums_the_cost(against: str, step: float) -> None:
    selected = trial(3, 1.0, Role.SELECT)
    line = named(search.best_so_far([*TRIALS, selected], OBJECTIVE, against), "best so far")
    assert list(line.y) == [1.9, 1.7, 1.7, 1.6]
    assert list(line.x) == [step * i for i in range(1, 5)]


def test_what_a_pruned_trial_cost_counts_but_it_is_no_point() -> None:
    pruned = dataclasses.replace(trial(1, 0.5), state=State.PRUNED)
    line = named(search.best_so_far([TRIALS[0], pruned, *TRIALS[2:]], OBJECTIVE), "best so far")
    assert list(line.y) == [1.9, 1.8, 1.6]
    assert list(line.x) == [100, 300, 400]


def test_epochs_stand_above_the_bars_where_tokens_and_budget_are_known() -> None:
    weights = {"natural": Mixture.of({"law": 0.25, "code": 0.75})}
    known = mixtures.mixture_bars(weights, available={"law": 100, "code": 300}, budget=800)
    assert list(known.data[0].text) == ["2×", "2×"]
    assert mixtures.mixture_bars(weights).data[0].text is None


def test_a_candidate_that_was_not_measured_is_not_drawn() -> None:
    means = [
        t
        for t in selection.candidates(CANDIDATES, OBJECTIVE).data
        if t.name == "mean, 90 % interval"
    ]
    assert [list(t.y) for t in means] == [["found"], ["natural"]]


def test_the_interval_of_a_mean_over_seeds_is_students() -> None:
    mean = named(selection.candidates(CANDIDATES, OBJECTIVE), "mean, 90 % interval")
    # t of 3 degrees of freedom at .95 (any table), for a deviation of .01633 over 4 seeds
    assert mean.error_x.array[0] == pytest.approx(2.3534 * 0.01633 / 2, rel=1e-3)


def test_one_seed_has_no_interval() -> None:
    once = Candidate("found", LAW, 1, 1.6, None, (1.6,))
    mean = named(selection.candidates([once], OBJECTIVE), "mean, 90 % interval")
    assert (mean.error_x.array[0], "±" in mean.hovertemplate) == (0, False)


def test_a_predicted_candidate_has_the_interval_that_counts_seeds() -> None:
    candidate = dataclasses.replace(FOUND, predicted=Predicted(1.6, 0.01, 1.5, 1.7))
    drawn = named(selection.candidates([candidate], OBJECTIVE), "predicted before, 90 % interval")
    assert drawn.error_x.array[0] == pytest.approx(0.1)


def test_a_promoted_metric_has_the_interval_that_counts_seeds() -> None:
    promotion = promotion_of(
        LAW, after={"bpb/law": 1.6}, predicted={"bpb/law": Predicted(1.6, 0.01, 1.5, 1.7)}
    )
    drawn = named(
        promoted.before_and_after(promotion, proxy="proxy of 4 parameters"),
        "proxy of 4 parameters, 90 % interval of a run",
    )
    assert drawn.error_x.array[0] == pytest.approx(0.1)


def test_a_promotion_that_was_not_trained_has_its_seed_and_its_start() -> None:
    figure = promoted.before_and_after(promotion_of(LAW, after={}, predicted={}))
    assert [trace.name for trace in figure.data] == ["seed model", "upcycled, untrained"]


def test_trials_that_lack_a_measurement_are_left_out_of_the_surrogates_plot() -> None:
    figure = surrogate.predicted_against_measured(
        np.array([1.0, np.nan, 2.0]),
        np.array([1.1, 1.5, 1.9]),
        np.array([0.1, 0.1, 0.1]),
        unit="acc",
    )
    assert figure.layout.xaxis.title.text == "measured (acc)"
    assert list(figure.data[1].x) == [1.0, 2.0]


def test_each_domain_has_a_panel_with_every_trial() -> None:
    figure = mixtures.objective_by_weight(TRIALS, OBJECTIVE)
    assert [a.text for a in figure.layout.annotations] == ["law", "code"]
    assert [len(t.x) for t in figure.data] == [4, 4]


def test_highlighted_curves_are_drawn_over_the_others() -> None:
    curve = [CurvePoint(1, 50, {"bpb/law": 2.0}), CurvePoint(2, 100, {"bpb/law": 1.8})]
    figure = search.learning_curves({"a": curve, "b": curve}, OBJECTIVE, highlight={"a": "best"})
    assert [t.name for t in figure.data] == ["other trials", "best"]


def test_no_line_joins_evaluations_on_two_texts() -> None:
    end = CurvePoint(2, 100, {"bpb/law": 1.5}, on_curve_text={"bpb/law": 1.8})
    figure = search.learning_curves({"a": [CurvePoint(1, 50, {"bpb/law": 2.0}), end]}, OBJECTIVE)
    (line,) = figure.data
    assert list(line.y) == [2.0, 1.8]  # 1.5, on more text, is left to the tables


def test_mixtures_of_three_domains_lie_in_a_triangle_others_are_lines() -> None:
    three = Mixture.of({"law": 2, "code": 1, "web": 1})
    spec = dataclasses.replace(TRIALS[0].spec, mixture=three)
    triangle = mixtures.tried([dataclasses.replace(TRIALS[0], spec=spec)], OBJECTIVE).data[0]
    assert (triangle.type, list(triangle.a), list(triangle.c)) == ("scatterternary", [0.5], [0.25])
    lines = mixtures.tried(TRIALS, OBJECTIVE).data
    assert {line.type for line in lines} == {"scatter"}
    assert [y for line in lines for y in line.y][-3:] == [*TRIALS[3].spec.mixture.weights, None]


def test_another_way_to_search_is_drawn_beside_with_its_quartiles() -> None:
    ends = (np.array(each) for each in ([100, 200], [1.8, 1.7], [1.9, 1.8], [2.0, 1.9]))
    figure = search.best_so_far(TRIALS, OBJECTIVE, references={"random": Reference(*ends)})
    assert list(named(figure, "random").y) == [1.9, 1.8]


def test_loads_of_domains_with_unnamed_experts_are_numbered() -> None:
    figure = promoted.expert_loads({"law": [0.9, 0.1], "code": [0.2, 0.8]}, ["law"])
    assert list(figure.data[0].x) == ["law", "expert 1"]


def test_a_difference_to_the_baseline_lies_over_its_band_where_there_is_one() -> None:
    rows = [Compared(100, 1.0, 0.1), Compared(200, 2.0, 0.2, -0.4, -0.2, Place.WORSE)]
    figure = promoted.difference_to_baseline(rows, "bits per byte")
    assert list(named(figure, "full run").y) == [0.1, 0.2]
    expected = named(figure, "expected from pairs of seeds, 95 % for one more")
    assert (list(expected.x), list(expected.y)) == ([200], [pytest.approx(-0.3)])
    assert len(promoted.difference_to_baseline(rows[:1]).data) == 1


@pytest.mark.parametrize(
    "figure",
    [
        lambda: promoted.difference_to_baseline([]),
        lambda: search.best_so_far([], OBJECTIVE),
        lambda: mixtures.objective_by_weight([], OBJECTIVE),
        lambda: mixtures.tried([], OBJECTIVE),
        lambda: search.learning_curves({}, OBJECTIVE),
        lambda: selection.candidates([], OBJECTIVE),
        lambda: promoted.before_and_after(promotion_of(LAW, before={}, after={})),
        lambda: promoted.expert_loads({}),
        lambda: surrogate.predicted_against_measured(
            np.empty(0), np.empty(0), np.empty(0), unit=""
        ),
    ],
)
def test_nothing_to_draw_is_an_empty_figure(figure: object) -> None:
    assert callable(figure)
    assert figure().to_json()
