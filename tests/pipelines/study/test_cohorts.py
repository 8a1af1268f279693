"""Which trials train together, and that a study keeps to it whenever it is killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection

from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.recipe import Recipe
from mixopt.core.trials import Failure, Fidelity, Outcome, Trial, TrialSpec
from mixopt.corpus.shards import Corpus
from mixopt.io import files, markers
from mixopt.io.trial_files import CHECKPOINT, COHORT, read_cohorts, trial_folder
from mixopt.models.config import ModelConfig
from mixopt.pipelines.study.cohorts import Cohort, Packing, sizes
from mixopt.pipelines.study.run import run_study
from mixopt.pipelines.study.search import search
from mixopt.pipelines.study.session import open_session
from mixopt.pipelines.study.trials import add_missing, run_trials
from mixopt.pipelines.views.console import Display, make_console
from mixopt.proxies.job import Job
from mixopt.study.identity import Identity
from mixopt.study.ledger import Ledger
from mixopt.study.settings import load_study
from mixopt.workers.proxy_task import Work
from tests.pipelines.whole_study import MODEL, RECIPE, STEP, change, ledger_trials, write_study

pytestmark = pytest.mark.xdist_group("ray")

SHAPE, TRAINED = ModelConfig(**MODEL), Recipe(**RECIPE)
UNIFORM = Mixture.uniform(("law", "code"))


@given(trials=st.integers(1, 300), most=st.integers(1, 40), slots=st.integers(1, 20))
def test_cohorts_hold_all_trials_are_nearly_equal_and_leave_no_slot_idle(
    trials: int, most: int, slots: int
) -> None:
    found = sizes(trials, most, slots)
    assert sum(found) == trials
    assert max(found) - min(found) <= 1
    assert max(found) <= min(most, -(-trials // slots))
    assert len(found) % slots == 0 or len(found) == trials
    assert len(found) - slots < -(-trials // most) or len(found) == trials  # no more than needed


class Swarm:
    """Trials of a study folder in a ledger, and a packing of them."""

    def __init__(self, home: Path, tokens: Iterable[int]) -> None:
        self.home, storage = home, InMemoryStorage()
        number = storage.create_new_study([StudyDirection.MINIMIZE])
        self.ledger = Ledger(
            storage, number, "swarm", Objective({"law": 1.0}), Identity(home, "id", "recipe")
        )
        for count in tokens:
            self.add(count)
        self.packing = Packing(home, self.work, self.ledger)

    def add(self, tokens: int) -> None:
        seed = len(self.ledger.trials())
        self.ledger.add(TrialSpec(UNIFORM, Fidelity("proxy", 1, tokens), seed))

    def work(self, trial: Trial) -> Work:
        tokens, seed = trial.spec.fidelity.tokens, trial.spec.seed
        job = Job(SHAPE, TRAINED, "corpus", (trial.spec.mixture,), (seed,), tokens)
        folder = trial_folder(self.home, trial.number)
        return Work(str(trial.number), job, str(folder), str(seed))

    def form(self, most: int, slots: int = 1, *, asked: bool = False) -> list[Cohort]:
        """As a session does; `asked`: the study file gives the largest cohort."""
        pending = [t for t in self.ledger.trials() if not t.ended]
        packed, fresh = self.packing.packed(pending, most if asked else None)
        return [*packed, *self.packing.form(fresh, most, slots)]

    def give_up(self, number: int) -> None:
        self.ledger.fail(number, Failure.WORKER_LOST, "lost")

    def end(self, number: int) -> None:
        self.mark(number)
        self.ledger.fail(number, Failure.DIVERGED, "not finite")

    def mark(self, number: int) -> None:
        outcome = Outcome(None, Failure.DIVERGED, "not finite").to_json()
        marker = {"identity": str(number), "outcomes": [outcome]}
        markers.write(trial_folder(self.home, number), marker)


def numbers(cohorts: Iterable[Cohort]) -> list[list[int]]:
    return sorted([trial.number for trial in cohort.trials] for cohort in cohorts)


def checkpoint(cohort: Cohort) -> Path:
    path = Path(cohort.work.folder) / CHECKPOINT
    files.write_bytes(path, b"steps")
    return path


def test_trials_are_packed_in_their_order_and_packed_the_same_again(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path, [100] * 7)
    first = swarm.form(most=3)
    assert numbers(first) == [[0, 1, 2], [3, 4], [5, 6]]
    assert [c.work for c in swarm.form(most=3)] == [c.work for c in first]
    assert list(first[0].work.job.seeds) == [0, 1, 2]
    assert [Path(home.folder).name for home in first[0].work.homes] == ["0000", "0001", "0002"]


def test_trials_of_different_length_train_apart(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path, [100, 200, 100, 200])
    assert numbers(swarm.form(most=4)) == [[0, 2], [1, 3]]


def test_a_cohort_with_steps_goes_on_whole_though_one_of_it_has_ended(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path, [100] * 6)
    checkpoint(swarm.form(most=3)[0])
    swarm.end(1)
    again = swarm.form(most=3)
    assert numbers(again) == [[0, 1, 2], [3, 4, 5]]
    assert again[0].pending == (0, 2)


def test_a_cohort_that_is_done_gives_its_results_to_those_that_wait_for_them(
    tmp_path: Path,
) -> None:
    swarm = Swarm(tmp_path, [100] * 3)
    swarm.form(most=3)
    for number in range(3):
        swarm.mark(number)
    swarm.end(0)
    (again,) = swarm.form(most=3)
    assert (numbers([again]), again.pending) == ([[0, 1, 2]], (1, 2))


def test_a_cohort_without_steps_goes_on_whole_too(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path, [100] * 6)
    swarm.form(most=3)
    swarm.end(1)
    again = swarm.form(most=3)
    assert numbers(again) == [[0, 1, 2], [3, 4, 5]]
    assert again[0].pending == (0, 2)


def test_trials_that_were_given_up_are_left_out_and_the_others_begin_anew(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path, [100] * 6)
    stale = [checkpoint(cohort) for cohort in swarm.form(most=3)]
    swarm.give_up(1)
    swarm.give_up(5)
    assert numbers(swarm.form(most=3)) == [[0, 2], [3, 4]]
    assert not any(path.exists() for path in stale[:1])  # 0-2 is of others now
    assert sorted(read_cohorts(tmp_path).values()) == [[0, 2], [3, 4]]
    assert sorted(swarm.ledger.cohorts()) == [[0, 2], [3, 4]]


@pytest.mark.parametrize(("most", "slots"), [(1, 1), (6, 1), (2, 3), (6, 9)])
def test_what_was_packed_stays_so_whatever_the_cluster_is_by_then(
    most: int, slots: int, tmp_path: Path
) -> None:
    swarm = Swarm(tmp_path, [100] * 6)
    first = swarm.form(most=4, slots=2)
    for cohort in first:
        shutil.rmtree(cohort.work.folder)  # what the folder tells follows from the ledger
    assert [c.work for c in swarm.form(most, slots)] == [c.work for c in first]
    assert sorted(read_cohorts(tmp_path).values()) == [[0, 1, 2], [3, 4, 5]]


def test_trials_that_train_alone_stay_alone_before_their_first_step_and_later_ones_are_packed(
    tmp_path: Path,
) -> None:
    swarm = Swarm(tmp_path, [100] * 3)
    swarm.form(most=4, slots=3)
    swarm.add(100)
    swarm.add(100)
    assert numbers(swarm.form(most=4, slots=1)) == [[0], [1], [2], [3, 4]]


def test_smaller_cohorts_are_for_those_that_have_not_begun(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path, [100] * 6)
    checkpoint(swarm.form(most=3)[0])
    assert numbers(swarm.form(most=1, asked=True)) == [[0, 1, 2], [3], [4], [5]]
    assert sorted(read_cohorts(tmp_path).values()) == [[0, 1, 2]]
    assert numbers(swarm.form(most=3)) == [[0, 1, 2], [3], [4], [5]]


def test_a_new_ledger_takes_cohorts_that_have_begun_from_the_folder(tmp_path: Path) -> None:
    before = Swarm(tmp_path, [100] * 6)
    files.write_json(tmp_path / "cohorts" / "0000-0002" / COHORT, {"trials": [0, 2]})
    files.write_bytes(trial_folder(tmp_path, 1) / CHECKPOINT, b"steps")
    before.mark(3)  # and one whose result the ledger has not heard of
    assert numbers(before.form(most=4)) == [[0, 2], [1], [3], [4, 5]]
    assert sorted(before.ledger.cohorts()) == [[0, 2], [1], [3], [4, 5]]


def test_halves_begin_anew_and_are_remembered_in_place_of_the_whole(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path, [100] * 5)
    (whole,) = swarm.form(most=5)
    stale = checkpoint(whole)
    halves = swarm.packing.halve(whole)
    assert numbers(halves) == [[0, 1, 2], [3, 4]]
    assert not any((Path(half.work.folder) / CHECKPOINT).exists() for half in halves)
    assert numbers(swarm.form(most=5)) == [[0, 1, 2], [3, 4]]
    assert sorted(swarm.ledger.cohorts()) == [[0, 1, 2], [3, 4]]
    assert stale.parent not in read_cohorts(tmp_path)


@pytest.mark.usefixtures("ray_here")
@pytest.mark.slow
def test_a_study_trains_its_trials_in_cohorts_and_records_each_alone(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    found = {}
    for cohort in (1, 3):
        file = write_study(
            tmp_path / str(cohort) / "study.yaml",
            text_corpus.path,
            proxy={"tokens": 60 * STEP},
            ray={"cohort": cohort},
            mlflow={"enabled": False},
        )
        with open_session(file) as session:
            swarm = session.study.initial_design(session.space)
            specs = [TrialSpec(m, session.fidelity, 0) for m in swarm]
            trials = add_missing(session.ledger, session.space, specs)
            found[cohort] = run_trials(session, "swarm", trials)
            cohorts = sorted(read_cohorts(session.home).values())
            assert cohorts == {1: [], 3: [[0, 1, 2], [3, 4]]}[cohort]
    for alone, together in zip(found[1], found[3], strict=True):
        assert together.spec == alone.spec
        assert together.attempts == 1
        assert together.metrics == pytest.approx(dict(alone.metrics), abs=2e-3)


class Interrupted(Display):
    """A display whose user presses Ctrl-C when so many trials have ended."""

    def __init__(self, ended: int) -> None:
        super().__init__(make_console())
        self._ended = ended

    def phase(
        self, label: str, total: float, items: int, done: dict[str, float], kind: str = ""
    ) -> AbstractContextManager[None]:
        """See `Display.phase`."""
        if self._ended == len(done):
            raise KeyboardInterrupt
        return super().phase(label, total, items, done, kind)

    def finished(self, key: str, flops: float) -> None:
        """See `Display.finished`."""
        super().finished(key, flops)
        if self._ended == self._items[0]:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_study_resumed_on_another_cluster_trains_and_proposes_as_if_it_had_not_been_interrupted(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    whole, broken = (
        write_study(
            tmp_path / name / "study.yaml",
            text_corpus.path,
            search={"trials": 4, "repeats": 0, "batch": 1},
            ray={"cohort": "auto", "cpus_per_trial": 0.1},  # a slot for each trial of the swarm
            mlflow={"enabled": False},
            promote=None,
        )
        for name in ("whole", "broken")
    )
    for file in (whole, broken):  # as if measured, which takes longer than these trainings
        files.write_json(load_study(file).home / "cohort.json", {"proxies": 3})
    run_study(whole, step="search")
    for ended, cpus in ((0, 0.1), (1, 1), (2, 0.5)):
        change(broken, "ray", cpus_per_trial=cpus)
        with pytest.raises(KeyboardInterrupt), open_session(broken, Interrupted(ended)) as session:
            search(session)
        assert sum(t.ended for t in ledger_trials(broken)) == ended
    change(broken, "ray", cpus_per_trial=1)
    run_study(broken, step="search")
    of_whole, of_broken = ([(t.spec, t.metrics) for t in ledger_trials(f)] for f in (whole, broken))
    assert of_broken == of_whole  # bit for bit
    with open_session(broken) as session:
        assert session.ledger.cohorts() == [[number] for number in range(5)]


@pytest.mark.usefixtures("ray_here")
def test_a_cohort_that_is_out_of_memory_is_halved_before_a_trial_fails(
    text_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_study(
        tmp_path / "study.yaml",
        text_corpus.path,
        proxy={"model": MODEL | {"expert_width": 2**45}},  # beyond any address space
        ray={"cohort": 3, "attempts": 1},
        mlflow={"enabled": False},
    )
    with open_session(file) as session:
        natural = session.corpus.natural
        specs = [TrialSpec(natural, session.fidelity, seed) for seed in range(3)]
        ended = run_trials(session, "swarm", add_missing(session.ledger, session.space, specs))
    printed = capsys.readouterr().out
    assert "trials 0-2 are out of memory together" in printed
    assert "trials 0-1 are out of memory together" in printed
    assert [t.failure for t in ended] == [Failure.OUT_OF_MEMORY] * 3
    assert [t.attempts for t in ended] == [3, 3, 2]  # of three, of two, alone
