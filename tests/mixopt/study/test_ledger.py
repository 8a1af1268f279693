"""The ledger records each trial once, keeps what it is told, and survives being reopened."""

import contextlib
import dataclasses
import importlib.util
import shutil
import sqlite3
from pathlib import Path

import optuna
import pytest

from mixopt.core import urls
from mixopt.core.errors import FileError, LedgerError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import (
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
from mixopt.study import identity
from mixopt.study.identity import claim
from mixopt.study.ledger import Ledger
from mixopt.study.rounds import Judged, Round

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
    owner = claim(path, "recipe")
    return Ledger.open(urls.sqlite(path / "ledger.db"), "demo", OBJECTIVE, owner)


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


def test_what_rounds_and_verdicts_used_comes_back_after_reopening(tmp_path: Path) -> None:
    ledger = reopened(tmp_path)
    rounds = {
        10: Round(10, "bayes", "gp", {"bpb/law": 1.0}, (spec(0.1), spec(1 / 3))),
        2: Round(2, "random", None, {"bpb/law": 0.5, "bpb/code": 0.5}, ()),
    }
    judged = {1: Judged(1, "repeat", 3, 0.9, "gp", {"bpb/law": 1.0})}
    for asked in rounds.values():
        ledger.keep_round(asked)
    ledger.keep_judged(judged[1])
    ledger.close()
    assert (reopened(tmp_path).rounds(), reopened(tmp_path).judged()) == (rounds, judged)


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


def test_a_held_trial_stays_open_with_its_reason_until_it_is_released(tmp_path: Path) -> None:
    ledger = reopened(tmp_path)
    ledger.add(spec())
    ledger.start(0)
    ledger.hold(0, "lost its worker 4 times")
    ledger.close()
    ledger = reopened(tmp_path)
    held = ledger.trial(0)
    assert (held.held, held.ended, held.message) == (True, False, "lost its worker 4 times")
    ledger.release(0)
    assert not ledger.trial(0).held
    assert ledger.complete(0, RESULT).state is State.COMPLETE


def test_a_held_trial_that_is_given_up_ends_without_a_score(tmp_path: Path) -> None:
    ledger = reopened(tmp_path)
    ledger.add(spec())
    ledger.hold(0, "lost its worker 4 times")
    given_up = ledger.fail(0, Failure.GIVEN_UP, "given up by hand")
    assert (given_up.state, given_up.failure) == (State.FAILED, Failure.GIVEN_UP)
    assert given_up.result is None


def test_a_finished_trial_is_neither_held_nor_released(tmp_path: Path) -> None:
    ledger = reopened(tmp_path)
    ledger.add(spec())
    ledger.complete(0, RESULT)
    for act in (lambda: ledger.hold(0, "lost"), lambda: ledger.release(0)):
        with pytest.raises(LedgerError, match="cannot be run again"):
            act()


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


HIGHER = Objective({"accuracy": -1.0}, prefix="")
RIGHT = {"accuracy": 0.75}


def of_accuracies(path: Path) -> Ledger:
    """A ledger of a study that weighs an accuracy; closed ones have a complete trial."""
    url = urls.sqlite(path / "ledger.db")
    return Ledger.open(url, "demo", HIGHER, claim(path, "recipe"))


def in_optuna(path: Path) -> optuna.Study:
    return optuna.load_study(study_name="demo", storage=urls.sqlite(path / "ledger.db"))


@pytest.mark.parametrize(
    ("made", "value", "named"),
    [("now", 0.75, "accuracy"), ("minimised", -0.75, "−accuracy")],
)
def test_what_is_better_higher_is_maximised_in_optunas_own_view(
    tmp_path: Path, made: str, value: float, named: str
) -> None:
    if made == "minimised":  # as all ledgers were once
        optuna.create_study(
            storage=urls.sqlite(tmp_path / "ledger.db"), study_name="demo", direction="minimize"
        )
    ledger = of_accuracies(tmp_path)
    for number, right in enumerate((0.25, RIGHT["accuracy"])):
        ledger.add(spec(0.25 + number / 2))
        ledger.start(number)
        curve = (CurvePoint(1, 100, {"accuracy": right}),)
        ledger.complete(number, TrialResult({"accuracy": right}, curve, Cost()))
    ledger.close()
    seen = in_optuna(tmp_path)
    assert seen.best_trial.number == 1
    assert seen.best_value == value
    assert seen.best_trial.intermediate_values == {1: value}
    assert seen.metric_names == [named]
    again = of_accuracies(tmp_path)
    assert again.trial(1).metrics == RIGHT
    assert HIGHER.of_trial(again.trial(1)) == -0.75  # ours is better lower, as ever
    again.close()


def test_a_storage_that_cannot_be_reached_names_itself_and_the_mend(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"(?s)sqlite:////nowhere/at/all.db.*ledger"):
        Ledger.open("sqlite:////nowhere/at/all.db", "demo", OBJECTIVE, claim(tmp_path, ""))


def opened(home: Path, url: str, training: str = "recipe") -> Ledger:
    home.mkdir(exist_ok=True)
    return Ledger.open(url, "demo", OBJECTIVE, claim(home, training))


@pytest.mark.parametrize("name", ["lr?v=2", "lr%20x", "a b#{c}", "é&ü"])
def test_a_ledger_lies_in_its_folder_whatever_the_folder_is_called(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    reopened(tmp_path / name).add(spec())
    assert len(reopened(tmp_path / name).trials()) == 1
    assert (tmp_path / name / "ledger.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_ledger_of_another_folder_is_refused(tmp_path: Path) -> None:
    url = urls.sqlite(tmp_path / "shared.db")
    opened(tmp_path / "a", url).add(spec())
    with pytest.raises(LedgerError, match="another study folder"):
        opened(tmp_path / "b", url)
    assert len(opened(tmp_path / "a", url).trials()) == 1


def test_a_folder_whose_trials_were_trained_otherwise_is_refused(tmp_path: Path) -> None:
    reopened(tmp_path).add(spec())
    with pytest.raises(LedgerError, match="other settings or on another corpus"):
        claim(tmp_path, "another recipe")
    (tmp_path / "identity.json").unlink()  # to no avail: the ledger knows as well
    with pytest.raises(LedgerError, match="other settings or on another corpus"):
        opened(tmp_path, urls.sqlite(tmp_path / "ledger.db"), "another recipe")


def test_a_folder_without_its_identity_takes_back_the_one_that_its_ledger_knows(
    tmp_path: Path,
) -> None:
    reopened(tmp_path).add(spec())
    before = identity.read(tmp_path)
    (tmp_path / "identity.json").unlink()
    assert identity.read(tmp_path) == before
    assert not (tmp_path / "identity.json").exists()  # reading writes nothing
    assert len(reopened(tmp_path).trials()) == 1
    assert identity.read(tmp_path) == claim(tmp_path, "recipe") == before


def test_a_fresh_identity_is_written_only_once_the_ledger_is_known_to_be_free(
    tmp_path: Path,
) -> None:
    url, home = urls.sqlite(tmp_path / "shared.db"), tmp_path / "home"
    opened(home, url).add(spec())
    (home / "trials").mkdir()
    (home / "identity.json").unlink()
    for look in (lambda: opened(home, url), lambda: identity.read(home)):
        with pytest.raises(LedgerError, match=r"identity\.json: this file is missing.*a backup"):
            look()
        assert not (home / "identity.json").exists()
    new = opened(home, urls.sqlite(tmp_path / "new.db"))
    assert identity.read(home) == new.owner


@pytest.mark.parametrize("text", ['{"id": "a', "{}", '{"id": 1, "path": "/", "copied_from": ""}'])
def test_an_identity_that_is_cut_or_of_another_shape_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "identity.json").write_text(text)
    for look in (lambda: identity.read(tmp_path), lambda: claim(tmp_path, "recipe")):
        with pytest.raises(FileError, match=r"identity\.json.*Restore it"):
            look()


def test_a_trial_of_another_training_is_refused(tmp_path: Path) -> None:
    other, mine = tmp_path / "other", tmp_path / "mine"
    opened(other, urls.sqlite(other / "ledger.db"), "another recipe").add(spec())
    ledger = opened(mine, urls.sqlite(mine / "ledger.db"))
    strange = optuna.load_study(study_name="demo", storage=urls.sqlite(other / "ledger.db"))
    optuna.load_study(study_name="demo", storage=urls.sqlite(mine / "ledger.db")).add_trials(
        strange.trials
    )
    with pytest.raises(LedgerError, match="trial 0 of demo was not trained as this study trains"):
        ledger.trials()


def test_a_moved_folder_keeps_its_ledger_and_a_copy_has_its_own(tmp_path: Path) -> None:
    first, moved, copy = tmp_path / "first", tmp_path / "moved", tmp_path / "copy"
    opened(first, urls.sqlite(first / "ledger.db")).add(spec())
    before = claim(first, "recipe").id
    first.rename(moved)
    assert claim(moved, "recipe").id == before
    shutil.copytree(moved, copy)
    assert claim(copy, "recipe").id not in ("", before)
    assert claim(copy, "recipe").id == claim(copy, "recipe").id
    assert len(reopened(copy).trials()) == len(reopened(moved).trials()) == 1
    with pytest.raises(LedgerError, match="another study folder"):
        opened(copy, urls.sqlite(moved / "ledger.db"))


def test_a_copy_of_a_folder_is_refused_by_the_ledger_that_both_would_share(tmp_path: Path) -> None:
    first, copy, url = tmp_path / "first", tmp_path / "copy", urls.sqlite(tmp_path / "shared.db")
    opened(first, url).add(spec())
    shutil.copytree(first, copy)
    with pytest.raises(LedgerError, match="another study folder"):
        opened(copy, url)


def test_an_unreachable_ledger_does_not_give_its_password_away(tmp_path: Path) -> None:
    with pytest.raises(LedgerError) as caught:
        opened(tmp_path, "postgresql://anna:hunter2@127.0.0.1:1/mixopt")
    assert "postgresql://anna:***@127.0.0.1:1/mixopt" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_message_of_a_trial_holds_no_password_also_where_it_is_cut(tmp_path: Path) -> None:
    ledger = reopened(tmp_path)
    for number, end in enumerate(("", "x" * 1990)):
        ledger.add(spec())
        ledger.note(number, f"cannot reach http://anna:hunter2@host/ {end}")
        assert "hunter2" not in ledger.trial(number).message
        assert "ter2" not in ledger.trial(number).message
        ledger.fail(number, Failure.CRASHED, f"cannot reach http://anna:hunter2@host/ {end}")
        assert "ter2" not in ledger.trial(number).message


def test_a_database_that_fails_while_a_study_runs_is_named_with_its_own_words(
    tmp_path: Path,
) -> None:
    ledger = reopened(tmp_path)
    ledger.add(spec())
    (tmp_path / "ledger.db").write_bytes(b"no database" * 100)
    for act in (ledger.trials, lambda: ledger.start(0), lambda: ledger.add(spec())):
        with pytest.raises(
            LedgerError, match=r"ledger\.db: the ledger cannot be used: \S+"
        ) as caught:
            act()
        assert "max length" not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "Restore that file from a backup" in str(caught.value)


def read(path: Path, name: str = "demo") -> Ledger:
    owner = claim(path, "recipe")
    return Ledger.read(urls.sqlite(path / "ledger.db"), name, OBJECTIVE, owner)


@pytest.mark.parametrize("name", ["plain", "lr?v=2", "a b#{c}%20"])
def test_a_ledger_that_is_read_shows_its_trials_and_cannot_be_written(
    tmp_path: Path, name: str
) -> None:
    home = tmp_path / name
    home.mkdir()
    reopened(home).add(spec())
    before = (home / "ledger.db").read_bytes()
    ledger = read(home)
    assert [t.spec for t in ledger.trials()] == [spec()]
    with pytest.raises(LedgerError, match=r"ledger\.db.*attempt to write a readonly database"):
        ledger.note(0, "a line")
    assert (home / "ledger.db").read_bytes() == before


def test_reading_makes_neither_a_ledger_nor_a_study_in_it(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        read(tmp_path)
    assert not (tmp_path / "ledger.db").exists()
    reopened(tmp_path)
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        read(tmp_path, "another")
    assert optuna.get_all_study_names(urls.sqlite(tmp_path / "ledger.db")) == ["demo"]


@pytest.mark.parametrize(
    ("keep", "reason"),
    [(0, "empty"), (5000, "damaged: .*malformed"), (-4096, "damaged: .*malformed")],
)
def test_a_ledger_that_was_cut_names_its_file_and_the_way_on(
    tmp_path: Path, keep: int, reason: str
) -> None:
    reopened(tmp_path).close()
    file = tmp_path / "ledger.db"
    whole = file.read_bytes()
    file.write_bytes(whole[:keep])
    wanted = rf"^{file}: the ledger is {reason}\. Restore it from a backup, or .*`mixopt run`"
    with pytest.raises(LedgerError, match=wanted) as caught:
        read(tmp_path)
    assert "study file" not in str(caught.value)  # which names no ledger
    if keep:
        with pytest.raises(LedgerError, match=wanted):
            reopened(tmp_path)
        file.rename(tmp_path / "aside.db")
    assert reopened(tmp_path).trials() == []


def test_a_ledger_that_the_study_file_names_is_looked_for_there_first(tmp_path: Path) -> None:
    away, home = tmp_path / "away.db", tmp_path / "home"
    opened(home, urls.sqlite(away))
    away.write_bytes(b"no database" * 100)
    with pytest.raises(LedgerError, match=r"away\.db: .*Check the study file's `ledger`.*Restore"):
        Ledger.read(urls.sqlite(away), "demo", OBJECTIVE, claim(home, "recipe"))


def test_a_write_that_a_kill_interrupted_is_undone_by_the_reader(tmp_path: Path) -> None:
    reopened(tmp_path).add(spec())
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "identity.json", copy)
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as writer:
        writer.execute("PRAGMA cache_size = 1")  # changed pages go to the file before the commit
        writer.execute("CREATE TABLE later (text TEXT)")
        writer.executemany("INSERT INTO later VALUES (?)", [("x" * 4000,)] * 500)
        for file in tmp_path.glob("ledger.db*"):
            shutil.copy(file, copy)
    assert (copy / "ledger.db-journal").stat().st_size > 0
    owner = identity.read(copy)
    assert owner is not None
    url = urls.sqlite(copy / "ledger.db")
    assert len(Ledger.read(url, "demo", OBJECTIVE, owner).trials()) == 1


@pytest.mark.skipif(importlib.util.find_spec("psycopg") is not None, reason="psycopg is here")
def test_a_missing_driver_of_postgresql_is_named_with_the_extra_that_has_it(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"psycopg.*pip install 'mixopt\[postgres\]'"):
        opened(tmp_path, "postgresql://host/mixopt")
