"""A study that MixMin searches: trials keep what it needs; its mixture is the ensemble's best."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mixopt.core.errors import CheckpointError
from mixopt.core.trials import Role, State, Trial
from mixopt.corpus.shards import Corpus
from mixopt.io import token_losses
from mixopt.io.trial_files import trial_folder
from mixopt.pipelines.study.run import run_study
from mixopt.pipelines.study.search import propose
from mixopt.pipelines.study.session import open_session
from mixopt.study.queries import search_trials
from mixopt.study.settings import Study, load_study
from tests.pipelines.whole_study import ledger_trials, write_study

pytestmark = pytest.mark.xdist_group("ray")


@dataclass(frozen=True)
class Searched:
    """A finished search: its file, and its trials by round."""

    file: Path
    study: Study
    rounds: list[list[Trial]]

    def kept(self, trial: Trial) -> dict[str, np.ndarray]:
        return token_losses.read(trial_folder(self.study.home, trial.number) / token_losses.TOKENS)


@pytest.fixture(scope="module")
def searched(
    text_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory, ray_here: None
) -> Searched:
    """Three trials of a design, a round for the three domains, a round for the optimum."""
    file = write_study(
        tmp_path_factory.mktemp("mixmin") / "study.yaml",
        text_corpus.path,
        objective={"notes": 2.0, "law": 1.0},
        search={"proposer": "mixmin", "trials": 3, "repeats": 0, "rounds": 2, "batch": 3},
        space={"max_epochs": None},
        mlflow={"enabled": False},
        promote=None,
    )
    run_study(file, step="search")
    trials = ledger_trials(file)
    assert {t.state for t in trials} == {State.COMPLETE}
    rounds = [[t for t in trials if t.spec.round == number] for number in range(3)]
    return Searched(file, load_study(file), rounds)


@pytest.fixture
def copy(searched: Searched, tmp_path: Path) -> Path:
    """The study file of a copy to break."""
    shutil.copytree(searched.file.parent, tmp_path / "copy")
    return tmp_path / "copy" / searched.file.name


def test_one_proxy_per_domain_is_trained_before_there_is_an_optimum(searched: Searched) -> None:
    largest = [max(t.spec.mixture.weights) for t in searched.rounds[1]]
    assert largest == [1.0, 1.0, 1.0]
    assert {t.spec.role for t in searched.rounds[2]} == {Role.SEARCH}
    assert all(max(t.spec.mixture.weights) < 1 for t in searched.rounds[2][1:])


def test_every_trial_keeps_the_tokens_that_its_metrics_are_means_of(searched: Searched) -> None:
    for trial in (t for batch in searched.rounds for t in batch):
        kept = searched.kept(trial)
        assert set(kept) == {
            "loss/notes",
            "loss/law",
        }  # those of the objective
        for metric, nats in kept.items():
            assert len(nats) == 512
            assert trial.metrics[metric] == pytest.approx(nats.mean(), rel=1e-6)


def test_no_mixture_of_the_proxies_predicts_better_than_the_one_proposed(
    searched: Searched,
) -> None:
    corners = searched.rounds[1]
    weights = np.array([t.spec.mixture.weights for t in corners])
    probs, share = [], []
    for metric, weight in searched.study.mixture_objective().weights.items():
        result = np.stack([searched.kept(t)[metric.replace("bpb", "loss")] for t in corners])
        # bits per byte of the metric for a nat of a token, on average
        unit = corners[0].metrics[metric] / result[0].astype(float).mean() / result.shape[1]
        probs.append(np.exp(-result.astype(float)))
        share.append(np.full(result.shape[1], weight * unit))

    def ensemble(mixture: np.ndarray) -> float:
        parts = np.linalg.lstsq(weights.T, mixture, rcond=None)[0]
        return float(-np.concatenate(share) @ np.log(parts @ np.concatenate(probs, axis=1)))

    for corner in corners:  # alone, the ensemble is the proxy
        own = searched.study.mixture_objective().value(corner.metrics)
        assert ensemble(corner.spec.mixture.array) == pytest.approx(own, rel=1e-5)
    proposed = ensemble(searched.rounds[2][0].spec.mixture.array)
    rivals = np.random.default_rng(0).dirichlet(np.ones(3), 300)
    assert proposed <= min(map(ensemble, rivals)) + 1e-5


def test_a_resumed_search_proposes_the_same_again(searched: Searched) -> None:
    with open_session(searched.file) as session:
        before = [t for t in search_trials(session.ledger.trials()) if t.spec.round < 2]
        again = list(propose(session, before, 2).specs)
    assert again == [t.spec for t in searched.rounds[2]]


def test_a_proxy_whose_tokens_are_lost_is_named(searched: Searched, copy: Path) -> None:
    corner = searched.rounds[1][0]
    with open_session(copy) as session:
        (trial_folder(session.home, corner.number) / token_losses.TOKENS).unlink()
        with pytest.raises(CheckpointError, match=rf"{corner.number:04d}/tokens\.npz.*put the"):
            propose(session, search_trials(session.ledger.trials()), 3)


def test_other_proposers_keep_no_tokens_and_train_the_same(
    searched: Searched, text_corpus: Corpus, tmp_path: Path
) -> None:
    works = []
    trial = searched.rounds[0][0]
    gate = dataclasses.replace(trial, spec=dataclasses.replace(trial.spec, role=Role.SELECT))
    for name in ("mixmin", "random"):
        file = write_study(
            tmp_path / name / "study.yaml",
            text_corpus.path,
            search={"proposer": name},
            mlflow={"enabled": False},
        )
        with open_session(file) as session:
            works.append(session.work(trial))
            assert session.work(gate).keep_tokens == ()  # no search learns from selection
    keeping, plain = works
    assert (keeping.keep_tokens, plain.keep_tokens) == (("notes",), ())
    assert (keeping.identity, keeping.job) == (plain.identity, plain.job)
