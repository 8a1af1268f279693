"""What binds trials to their settings, byte for byte: a change here orphans every study folder.

A value that changes on purpose is changed here with the reason in the changelog; a move never
changes one.
"""

import hashlib
from pathlib import Path

from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.core.trials import Fidelity, Role, TrialSpec
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.proxies.job import Job
from mixopt.study.hashes import digest
from mixopt.study.locked import lock_settings
from mixopt.study.promote import Promote
from mixopt.study.settings import load_study
from mixopt.study.trainings import training_hash

STUDY = """\
name: pinned
corpus: {corpus}
seed: 7
objective: {{law: 1, code: 2}}
space:
  bounds: {{law: [0, 0.8]}}
proxy:
  tokens: 20k
  simulate_repetition: false
  model: {{width: 32, experts: 8, router: top-p, router_settings: {{mass: 0.5}}}}
search: {{trials: 6, rounds: 2, pruner: {{chance: 0.1, startup_trials: 5}}}}
promote: {{tokens: 200k}}
"""
MIXTURE = Mixture.of({"law": 0.25, "code": 0.5, "prose": 0.25})


def test_a_trials_hash() -> None:
    spec = TrialSpec(
        MIXTURE, Fidelity("proxy", 1000, 20_000), 3, Role.SEARCH, round=2, candidate=""
    )
    assert spec.training_hash("corpus", "settings") == "06e96d25ef5cb821"


def test_a_jobs_hash() -> None:
    job = Job(
        model=ModelConfig(vocab_size=320, router="hash"),
        recipe=Recipe(),
        corpus="anywhere",
        mixtures=(MIXTURE, MIXTURE),
        seeds=(1, 2),
        tokens=20_000,
    )
    assert job.training_hash("corpus")[:16] == "2368e105d51e16f1"


def test_a_studys_hash_and_locked_settings(tmp_path: Path, text_corpus: Corpus) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.format(corpus=text_corpus.path))
    study = load_study(path)
    assert training_hash(study, text_corpus) == "6e74aed02b73ff80"
    lock_settings(study, text_corpus)
    locked = (study.home / "study.json").read_bytes().replace(text_corpus.hash.encode(), b"hash")
    assert hashlib.sha256(locked).hexdigest()[:16] == "1912141ac68b4457"


def test_a_promotions_settings() -> None:
    assert digest([Promote(tokens=200_000).canonical()]) == "d4054a605034bd63"
    assert digest([Promote(tokens=200_000, merge="ties").canonical()]) != "d4054a605034bd63"
