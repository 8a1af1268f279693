"""What a trial shows of its routing."""

import dataclasses
import json
from pathlib import Path

import pytest

from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Cost, CurvePoint, Fidelity, State, Trial, TrialResult, TrialSpec
from mixopt.io.trial_files import trial_folder
from mixopt.pipelines.views.mlflow.tracked_values import (
    best_so_far,
    promotion_finals,
    trial_metrics,
    trial_tags,
    verdict_metrics,
)
from mixopt.selection.results import Candidate, Decision, Predicted
from mixopt.surrogates.noise import SeedScatter
from tests.pipelines.finished_study import promotion_of, verdict_of

SCATTER = SeedScatter(std=0.03, freedom=4.5, runs=6)


def trial(**routing: object) -> Trial:
    metrics = {"bpb/law": 2.0}
    result = TrialResult(metrics, (CurvePoint(8, 512, metrics),), Cost(512, 3.0, 1e9), **routing)
    spec = TrialSpec(Mixture.of({"law": 1}), Fidelity("proxy", 10, 512), 0)
    return Trial(0, spec, State.COMPLETE, TrialResult.from_json(result.to_json()))


def shown(one: Trial, home: Path) -> dict[str, float]:
    return {name: value for name, value, _, _ in trial_metrics(one, home, Objective({"law": 1}), 0)}


def test_routing_is_shown_per_domain(tmp_path: Path) -> None:
    routing = {
        "loads": {"law": (0.5, 0.25, 0.25, 0.0)},
        "entropies": {"law": 0.6},
        "dropped": {"law": 0.01},
    }
    found = shown(trial(**routing), tmp_path)
    assert found["router/peak_load/law"] == pytest.approx(2.0)
    assert found["router/entropy/law"] == 0.6
    assert found["router/dropped/law"] == 0.01


def test_a_curve_is_of_one_text_and_the_result_stands_beside_it(tmp_path: Path) -> None:
    curve = trial_folder(tmp_path, 0) / "curve.jsonl"
    curve.parent.mkdir(parents=True)
    way = {"step": 4, "tokens": 256, "metrics": {"bpb/law": 2.5}}
    end = {"step": 8, "tokens": 512, "metrics": {"bpb/law": 2.0}, "on_curve_text": {"bpb/law": 2.4}}
    curve.write_text("\n".join(map(json.dumps, (way, end))))
    result = list(trial_metrics(trial(), tmp_path, Objective({"law": 1}), 0))
    assert [m[1] for m in result if m[0] == "curve/bpb/law"] == [2.5, 2.4]
    assert [m[1] for m in result if m[0] == "bpb/law"] == [2.0]


def test_the_training_is_a_series_beside_the_curve(tmp_path: Path) -> None:
    curve = trial_folder(tmp_path, 0) / "curve.jsonl"
    curve.parent.mkdir(parents=True)
    points = [
        {"step": 4, "tokens": 256, "metrics": {"bpb/law": 2.5}, "seconds": 1.0},
        {"step": 8, "tokens": 512, "metrics": {"bpb/law": 2.0}, "seconds": 2.0},
    ]
    points[0]["training"] = {"loss": 5.0, "grad_norm": 0.7}
    points[1]["training"] = {"loss": 4.0}
    curve.write_text("\n".join(map(json.dumps, points)))
    result = list(trial_metrics(trial(), tmp_path, Objective({"law": 1}), start=60_000))
    assert [m for m in result if m[0].startswith("train/")] == [
        ("train/loss", 5.0, 256, 61_000),
        ("train/grad_norm", 0.7, 256, 61_000),
        ("train/loss", 4.0, 512, 62_000),
    ]


def test_a_pruned_trial_shows_its_curve_and_cost_and_no_objective(tmp_path: Path) -> None:
    pruned = dataclasses.replace(trial(), state=State.PRUNED, message="it would hardly win")
    curve = trial_folder(tmp_path, 0) / "curve.jsonl"
    curve.parent.mkdir(parents=True)
    curve.write_text('{"step": 4, "tokens": 256, "metrics": {"bpb/law": 2.5}, "seconds": 1.0}\n')
    found = shown(pruned, tmp_path)
    assert found["curve/bpb/law"] == 2.5
    assert "bpb/law" not in found  # a result on the way is none at the end
    assert found["cost/tokens"] == 512
    assert "objective" not in found
    tags = trial_tags(pruned)
    assert tags == {"mixopt.state": "pruned"}


def test_the_cost_of_pruned_trials_is_in_the_sums() -> None:
    one, other = trial(), dataclasses.replace(trial(), number=2)
    pruned = dataclasses.replace(trial(), number=1, state=State.PRUNED)
    points = best_so_far([one, pruned, other], Objective({"law": 1}), 0)
    assert [(v, step) for name, v, step, _ in points if name == "best/tokens"] == [
        (512, 1),
        (3 * 512, 2),
    ]


def test_an_accuracy_is_shown_as_it_is(tmp_path: Path) -> None:
    accuracy = Objective({"accuracy/arc": -1})
    trials = []
    for number, value in enumerate((0.4, 0.6, 0.5)):
        metrics = {"accuracy/arc": value}
        result = TrialResult(metrics, (CurvePoint(8, 512, metrics),), Cost(512, 3.0, 1e9))
        trials.append(dataclasses.replace(trial(), number=number, result=result))
    found = {name: value for name, value, *_ in trial_metrics(trials[0], tmp_path, accuracy, 0)}
    assert found["objective"] == found["accuracy/arc"] == 0.4
    points = best_so_far(trials, accuracy, 0)
    assert [v for name, v, *_ in points if name == "best/objective"] == [0.4, 0.6, 0.6]


def test_a_verdict_turned_is_of_what_people_read() -> None:
    better = dataclasses.replace(
        NATURAL, name="found", mean=-0.6, difference=-0.2, difference_low=-0.3, difference_high=-0.1
    )
    kept = verdict_of(
        decision(NATURAL),
        candidates=(NATURAL, better),
        interval=(-0.7, -0.5),
        promoted="found",
    )
    verdict = kept.turned(-1)
    assert verdict.turned(-1) == kept
    assert kept.turned(1) is kept
    assert verdict.interval == (0.5, 0.7)
    found = {name: value for name, value, *_ in verdict_metrics(verdict, 0)}
    assert found["objective"] == 0.6
    assert found["baseline"] == -2.0
    assert found["difference"] == 0.2
    assert found["difference_low"] == 0.1
    assert found["difference_high"] == 0.3


def test_a_dense_model_shows_none(tmp_path: Path) -> None:
    assert not [name for name in shown(trial(), tmp_path) if name.startswith("router/")]


LAW = Mixture.of({"law": 1})
NATURAL = Candidate("natural", LAW, n=1, mean=2.0, predicted=Predicted(2.05, 0.1, 1.9, 2.2))


def decision(candidate: Candidate) -> Decision:
    return Decision(
        baseline="natural",
        promoted="natural",
        improved=False,
        reason="nothing is better",
        confidence=0.9,
        level=0.1,
        look=1,
        looks=1,
        candidates=(candidate,),
    )


def test_a_baseline_that_is_selected_has_no_difference() -> None:
    verdict = verdict_of(decision(NATURAL), candidates=(NATURAL,), seed_scatter=SCATTER)
    found = {name: value for name, value, _, _ in verdict_metrics(verdict, 0)}
    assert found == {"objective": 2.0, "baseline": 2.0}


def test_a_verdict_without_measurements_shows_none() -> None:
    verdict = verdict_of(decision(Candidate("natural", LAW)))
    assert list(verdict_metrics(verdict, 0)) == []


def test_a_promotion_shows_the_interval_of_a_run() -> None:
    promotion = promotion_of(LAW, predicted={"bpb/law": Predicted(2.0, 0.01, 1.9, 2.1)})
    finals = promotion_finals(promotion, Objective({"law": 1}), 0)
    found = {name: value for name, value, _, _ in finals}
    assert found["proxy_predicted_low/bpb/law"] == 1.9
    assert found["proxy_predicted_high/bpb/law"] == 2.1
    assert found["cost/upcycled/tokens"] == 600_000
