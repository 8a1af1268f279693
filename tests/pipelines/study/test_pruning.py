"""A study that prunes: the same trials whatever interrupts it, and every view says so."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mixopt.core.errors import CheckpointError, StudyError
from mixopt.core.mixture import Mixture
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import Fidelity, Role, State, Trial, TrialSpec
from mixopt.corpus.shards import Corpus
from mixopt.io.trial_files import read_cohorts, read_curve, trial_folder
from mixopt.pipelines.study.checks import check_search
from mixopt.pipelines.study.plan import show_plan
from mixopt.pipelines.study.run import sync_study
from mixopt.pipelines.study.search import search
from mixopt.pipelines.study.select import select
from mixopt.pipelines.study.session import open_session
from mixopt.pipelines.study.status import show_status
from mixopt.pipelines.study.trials import never_pruned
from mixopt.pipelines.views.console import Display, make_console
from mixopt.pipelines.views.report import write_report
from mixopt.proxies.checkpoint import load_state
from mixopt.search.designs import design
from mixopt.study.settings import Study, load_study
from tests.pipelines.study.test_kill import kill
from tests.pipelines.whole_study import (
    RECIPE,
    STEP,
    attempts,
    change,
    finish,
    ledger_trials,
    shown_trials,
    start,
    succeeded,
    wait_for,
    write_study,
)

pytestmark = pytest.mark.xdist_group("ray")

STEPS = 60


def write(file: Path, corpus: Corpus, **changes: Any) -> Path:
    """A study of whose trials many are pruned: it asks for little and knows little."""
    sections: dict[str, Any] = {
        "proxy": {"tokens": STEPS * STEP, "recipe": RECIPE | {"evaluations": 4}},
        "search": {
            "trials": 10,
            "repeats": 1,
            "rounds": 1,
            "batch": 3,
            "pruner": {"chance": 0.4, "startup_trials": 5},
        },
        "promote": None,
        "ray": {"cohort": 3},
        "mlflow": {"enabled": True},
    }
    return write_study(file, corpus.path, **(sections | changes))


def found(trials: list[Trial]) -> list[object]:
    """What must not depend on interruptions: all but times."""
    return [
        (t.number, t.spec, t.state, t.limits, t.message if t.state is State.PRUNED else "")
        + ((t.result.metrics, t.result.expected, t.result.cost.tokens) if t.result else ())
        for t in trials
    ]


@pytest.fixture(scope="module")
def searched(
    ray_here: None, text_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Study]:
    """A study whose search ran in one go, with its own MLflow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        file = write(tmp_path_factory.mktemp("pruned") / "study.yaml", text_corpus)
        with open_session(file) as session:
            search(session)
        yield load_study(file)


def of_state(study: Study, state: State) -> list[Trial]:
    return [t for t in ledger_trials(study) if t.state is state]


@pytest.mark.slow
def test_some_trials_are_pruned_and_only_those_that_may_be(searched: Study) -> None:
    trials, pruned = ledger_trials(searched), of_state(searched, State.PRUNED)
    assert {t.state for t in trials} == {State.COMPLETE, State.PRUNED}
    assert 2 <= len(pruned) < len(trials) - 5
    assert all(t.complete and t.limits is None for t in trials[:5])
    natural = [t for t in trials if t.spec.role is Role.REPEAT]
    assert natural
    assert all(t.complete and t.limits is None for t in natural)
    later = [t for t in trials[5:] if t.spec.role is not Role.REPEAT]
    assert all(t.limits is not None for t in later)


def test_a_trial_is_pruned_exactly_where_its_curve_says_so(searched: Study) -> None:
    for trial in ledger_trials(searched):
        if trial.limits is None:
            continue
        curve = read_curve(searched.home, trial)
        beyond = [trial.limits.hopeless(point) for point in curve]
        assert any(beyond) == (trial.state is State.PRUNED)
        if trial.state is State.PRUNED:
            assert [bool(reason) for reason in beyond] == [False] * (len(curve) - 1) + [True]
            assert trial.message == beyond[-1]
            assert trial.result is not None
            assert trial.result.cost.tokens == curve[-1].tokens < trial.spec.fidelity.tokens
            assert trial.expected.keys() == {"bpb/notes"}
            assert trial.failure is None
            assert trial.attempts == 1


def test_later_trials_go_by_all_that_ended_in_rounds_before(searched: Study) -> None:
    trials = ledger_trials(searched)
    for number, known in ((0, trials[:5]), (1, [t for t in trials if t.spec.round == 0])):
        best = min(t.metrics["bpb/notes"] for t in known if t.complete)
        limits = {
            t.limits.reason: t.limits
            for t in trials
            if t.spec.round == number and t.limits is not None
        }
        assert len(limits) == 1
        (reason,) = limits
        assert f"below {best:.4f}" in reason
        (lines,) = {
            line.n
            for limit in limits.values()
            for ends in limit.ends.values()
            for line in ends.values()
        }
        assert lines == sum(t.complete for t in known)


def test_the_views_tell_pruned_trials_from_complete_and_failed_ones(
    searched: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    pruned = of_state(searched, State.PRUNED)
    show_status(searched.path)
    printed = " ".join(capsys.readouterr().out.split())
    assert "pruned" in printed
    assert f"{len(pruned)} pruned" in printed
    assert f"trial {pruned[0].number} pruned: objective" in printed
    page = write_report(searched).read_text()
    assert ">Pruned trials</h2>" in page
    assert "No trial has failed" in page
    shown = shown_trials(searched)
    assert {n: status for n, (status, _) in shown.items()} == {
        t.number: "KILLED" if t.state is State.PRUNED else "FINISHED"
        for t in ledger_trials(searched)
    }
    one = shown[pruned[0].number][1]
    assert "objective" not in one
    assert "curve/bpb/notes" in one
    assert "bpb/notes" not in one
    sync_study(searched.path)
    assert shown_trials(searched).keys() == shown.keys()


def test_a_study_that_has_ended_runs_nothing_again(searched: Study) -> None:
    before = attempts(searched.home)
    with open_session(searched.path) as session:
        assert found(search(session)) == found(ledger_trials(searched))
    assert attempts(searched.home) == before


class Interruption(Exception):
    """What a test stops a driver with."""


class Stops(Display):
    """A display that stops its driver when the first trial is said to be pruned."""

    def say(self, text: str, style: str | None = None) -> None:
        super().say(text, style)
        if "is pruned" in text:
            raise Interruption


@pytest.mark.slow
@pytest.mark.parametrize("cohort", [1, 3])
def test_a_driver_that_stops_in_the_midst_goes_on_to_the_same(
    searched: Study, text_corpus: Corpus, tmp_path: Path, cohort: int
) -> None:
    file = write(
        tmp_path / "study.yaml", text_corpus, mlflow={"enabled": False}, ray={"cohort": cohort}
    )
    with pytest.raises(Interruption), open_session(file, Stops(make_console())) as session:
        search(session)
    with open_session(file) as session:
        search(session)
    trials = ledger_trials(file)
    assert {t.state for t in trials} == {State.COMPLETE, State.PRUNED}
    if cohort == 3:  # rows of a cohort equal trainings alone within rounding only
        assert found(trials) == found(ledger_trials(searched))
    # a worker that is cancelled between its marker and this note has ended all the same
    assert all(
        sum("completed" in line for line in lines) <= 1
        for lines in attempts(load_study(file).home).values()
    )


def test_a_marker_of_other_limits_does_not_count(searched: Study, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(searched.path.parent, folder)
    pruned = of_state(searched, State.PRUNED)[0]
    with open_session(folder / "study.yaml") as session:
        assert session.packing.form([pruned], 1)[0].work.homes[0].outcome() is not None
        alone = session.work(pruned)
        other = session.work(Trial(pruned.number, pruned.spec))
        assert alone.identity != other.identity
        assert other.homes[0].outcome() is None


def test_selection_goes_by_pruned_trials_and_prunes_none(searched: Study, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(searched.path.parent, folder, ignore=shutil.ignore_patterns("mlflow*"))
    change(folder / "study.yaml", "mlflow", enabled=False)
    with open_session(folder / "study.yaml") as session:
        verdict = select(session)
        trials = session.ledger.trials()
    chosen = [t for t in trials if t.spec.role is Role.SELECT]
    assert chosen
    assert all(t.complete and t.limits is None for t in chosen)
    assert sum(candidate.n for candidate in verdict.candidates) == len(chosen)
    assert verdict.surrogate == "gp"


@pytest.mark.parametrize("name", ["mixmin", "pareto"])
def test_a_proposer_that_needs_all_trials_refuses_a_pruner(
    name: str, text_corpus: Corpus, tmp_path: Path
) -> None:
    search = {"proposer": name, "pruner": {}}
    study = load_study(write_study(tmp_path / "study.yaml", text_corpus.path, search=search))
    with pytest.raises(StudyError, match=f"search.pruner: the proposer {name!r} needs.*Leave"):
        check_search(study)


def test_a_plan_says_that_it_may_cost_less(
    text_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "study.yaml", text_corpus)
    show_plan(file, slots=1)
    assert "Trials that are pruned cost less than this" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_a_study_killed_while_cohorts_prune_goes_on_to_the_same(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    sections = {
        "proxy": {"tokens": 1500 * STEP, "recipe": RECIPE | {"evaluations": 6}},
        "mlflow": {"enabled": False},
    }
    broken, whole = (
        write(tmp_path / name / "study.yaml", text_corpus, **sections)
        for name in ("broken", "whole")
    )
    home = load_study(broken).home

    def someone_left() -> bool:
        """Whether a cohort trains on with fewer than it began with."""
        for folder, numbers in read_cohorts(home).items():
            with contextlib.suppress(CheckpointError):  # not there yet, or just being replaced
                if len(load_state(folder / "checkpoint.safetensors")[1]["rows"]) < len(numbers):
                    return True
        return False

    driver = start("mixopt", "search", broken, cwd=broken.parent)
    wait_for(someone_left, driver)
    training, orphans = kill(driver)
    assert training
    assert orphans == []
    for file in (broken, whole):
        succeeded(finish(start("mixopt", "search", file, cwd=file.parent)))
    assert found(ledger_trials(broken)) == found(ledger_trials(whole))  # bit for bit
    assert any(t.state is State.PRUNED for t in ledger_trials(whole))
    assert not list(trial_folder(home, 0).parent.glob("*/checkpoint.safetensors"))


@pytest.mark.parametrize("upper", [{}, {"a": 0.25}])
def test_the_natural_mixture_is_never_pruned_nor_what_differs_from_it_by_rounding(
    upper: dict[str, float],
) -> None:
    space = MixtureSpace(("a", "b", "c"), Mixture.of({"a": 0.5, "b": 0.3, "c": 0.2}), upper=upper)
    fidelity = Fidelity("proxy", 1000, 1000)
    first = design(space, 6, 0)[0]
    rounded = Mixture.of({name: weight + 1e-13 for name, weight in first.as_dict().items()})
    for mixture in (first, rounded):
        assert never_pruned(TrialSpec(mixture, fidelity, 0), space)
    other = Mixture.of({"a": 0.2, "b": 0.4, "c": 0.4})
    assert not never_pruned(TrialSpec(other, fidelity, 0), space)
    assert never_pruned(TrialSpec(other, fidelity, 1, Role.SELECT), space)
    compared = dataclasses.replace(space, baseline=other)
    assert not never_pruned(TrialSpec(first, fidelity, 0), compared)
    assert never_pruned(TrialSpec(compared.mixture(other.array), fidelity, 0), compared)
