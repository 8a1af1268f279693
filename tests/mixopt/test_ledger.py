"""The ledger records each trial once, keeps what it is told, and survives being reopened."""

import dataclasses
from pathlib import Path

import optuna
import pytest

from mixopt.errors import LedgerError
from mixopt.ledger import Ledger
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.trials import (
    Cost,
    CurvePoint,
    Failure,
    Fidelity,
    Limits,
    Line,
    Role,
    State,
    TrialResult,
    TrialSpec,
)

OBJECTIVE = Objective({"law": 1.0})
RESULT = TrialResult(
    metrics={"bpb/law": 1.5, "loss/law": 2.5},
    curve=(CurvePoint(1, 100, {"bpb/law": 1.6}), CurvePoint(2, 200, {"bpb/law": 1.5})),
    cost=Cost(tokens=200, device_seconds=3.5, flops=1e9),
    loads={"law": (0.25, 0.75)},
    environment={"torch": "2"},
)


def spec(weight: float = 1 / 3, seed: int = 0) -> TrialSpec:
    mixture = Mixture.of({"law": weight, "code": 1 - weight})
    return TrialSpec(mixture, Fidelity("proxy", 1000, 200), seed, Role.DESIGN)


def reopened(path: Path) -> Ledger:
    return Ledger.open(f"sqlite:///{path / 'ledger.db'}", "demo", OBJECTIVE)


def test_a_trial_goes_from_waiting_through_running_to_complete(tmp_path: Path) -> None:
    ledger = reopened(tmp_path)
    trial = ledger.add(spec())
    assert (trial.number, trial.state) == (0, State.WAITING)
    assert ledger.start(0).state is State.RUNNING
    assert ledger.complete(0, RESULT).state is State.COMPLETE
    assert ledger.trial(0).metrics == RESULT.metrics


def test_everything_but_the_curve_comes_back_bit_for_bit_after_reopening(tmp_path: Path) -> None:
    ledger = reopened(tmp_path)
    ledger.add(spec(0.1234567890123456789))
    ledger.start(0)
    ledger.complete(0, RESULT)
    ledger.close()
    (trial,) = reopened(tmp_path).trials()
    assert trial.spec == spec(0.1234567890123456789)
    assert trial.result is not None
    assert trial.result.cost == RESULT.cost
    assert trial.result.loads == RESULT.loads
    assert trial.result.curve == ()


def test_a_finished_trial_is_neither_run_nor_recorded_again(tmp_path: Path) -> None:
    ledger = reopened(tmp_path)
    ledger.add(spec())
    ledger.start(0)
    ledger.complete(0, RESULT)
    with pytest.raises(LedgerError, match="cannot be run again"):
        ledger.start(0)
    with pytest.raises(LedgerError, match="complete and cannot"):
        ledger.complete(0, RESULT)
    with pytest.raises(LedgerError, match="complete and cannot"):
        ledger.fail(0, Failure.CRASHED, "late")


def test_a_running_trial_of_a_dead_driver_is_run_on_under_its_number(tmp_path: Path) -> None:
    ledger = reopened(tmp_path)
    ledger.add(spec())
    ledger.start(0)
    ledger.close()
    again = reopened(tmp_path)
    assert again.start(0).attempts == 2
    assert again.complete(0, RESULT).number == 0
    assert len(again.trials()) == 1


def test_a_failure_is_no_score(tmp_path: Path) -> None:
    ledger = reopened(tmp_path)
    ledger.add(spec())
    failed = ledger.fail(0, Failure.DIVERGED, "the loss is not finite")
    assert (failed.state, failed.failure) == (State.FAILED, Failure.DIVERGED)
    assert failed.metrics == {}
    assert not failed.complete


LIMITS = Limits(
    {"bpb/law": 1.0},
    ((1, 1.55), (2, 1.45)),
    "it would hardly win",
    {1: {"bpb/law": Line(1.6, 1.5, 0.9, 0.01, 0.2, 1.2, 8)}},
)


def test_a_pruned_trial_is_no_score_and_no_failure_and_keeps_what_it_cost(tmp_path: Path) -> None:
    ledger = reopened(tmp_path)
    ledger.add(spec(), LIMITS)
    ledger.start(0)
    part = dataclasses.replace(RESULT, curve=RESULT.curve[:1], expected={"bpb/law": (1.5, 0.02)})
    ledger.prune(0, part, "1.6 at step 1 is above 1.55")
    ledger.close()
    again = reopened(tmp_path)
    (trial,) = again.trials()
    assert (trial.state, trial.failure) == (State.PRUNED, None)
    assert trial.ended
    assert not trial.complete
    assert trial.metrics == {}
    assert trial.result is not None
    assert trial.result.cost == RESULT.cost
    assert trial.expected == {"bpb/law": (1.5, 0.02)}
    assert trial.limits == LIMITS
    assert trial.message == "1.6 at step 1 is above 1.55"
    with pytest.raises(LedgerError, match="pruned and cannot be run again"):
        again.start(0)
    study = optuna.load_study(study_name="demo", storage=f"sqlite:///{tmp_path / 'ledger.db'}")
    assert study.trials[0].state == optuna.trial.TrialState.PRUNED
    assert study.trials[0].intermediate_values == {1: 1.6}


def test_what_is_pruned_halfway_is_pruned_by_the_next_driver(tmp_path: Path) -> None:
    ledger = reopened(tmp_path)
    ledger.add(spec(), LIMITS)
    ledger.start(0)
    ledger._keep_result(0, RESULT)  # a driver that dies here
    ledger.close()
    again = reopened(tmp_path)
    assert again.trial(0).state is State.RUNNING
    assert again.trial(0).result is None
    assert again.prune(0, RESULT, "hopeless").state is State.PRUNED


def test_a_result_without_the_objectives_metrics_is_refused(tmp_path: Path) -> None:
    ledger = reopened(tmp_path)
    ledger.add(spec())
    ledger.start(0)
    with pytest.raises(LedgerError, match="bpb/law"):
        ledger.complete(0, TrialResult({"bpb/code": 1.0}, (), Cost()))
    assert ledger.trial(0).state is State.RUNNING


def test_optunas_own_view_shows_weights_and_objective(tmp_path: Path) -> None:
    ledger = reopened(tmp_path)
    ledger.add(spec(0.25))
    ledger.start(0)
    ledger.complete(0, RESULT)
    study = optuna.load_study(study_name="demo", storage=f"sqlite:///{tmp_path / 'ledger.db'}")
    assert study.best_value == 1.5
    assert study.best_params == {"law": 0.25, "code": 0.75}


def test_a_storage_that_cannot_be_reached_names_itself_and_the_mend() -> None:
    with pytest.raises(LedgerError, match=r"(?s)sqlite:////nowhere/at/all.db.*ledger"):
        Ledger.open("sqlite:////nowhere/at/all.db", "demo", OBJECTIVE)
