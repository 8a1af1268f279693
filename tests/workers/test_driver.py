"""The driver keeps Ray busy, survives its workers, and classifies what goes wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from mixopt.corpus.shards import Corpus
from mixopt.errors import CorpusError, TrainingError
from mixopt.mixture import Mixture
from mixopt.models.config import ModelConfig
from mixopt.recipe import Recipe
from mixopt.records import MARKER
from mixopt.token_losses import TOKENS
from proxies.job import Job
from workers import driver
from workers.cluster import Resources
from workers.proxy_task import ATTEMPTS, Work, finished, perform

MODEL = ModelConfig(width=16, layers=1, heads=2, experts=2, experts_per_token=1, expert_width=16)
RECIPE = Recipe(
    sequence_length=32,
    batch_sequences=4,
    evaluations=2,
    evaluation_tokens=512,
    curve_tokens=512,
    precision="fp32",
    checkpoint_seconds=0.2,
)
ONE = Resources(cpus=1)


def work(corpus: Corpus, folder: Path, key: str = "a", steps: int = 20, seed: int = 0) -> Work:
    job = Job(
        model=MODEL,
        recipe=RECIPE,
        corpus=str(corpus.path),
        mixtures=(Mixture.uniform(corpus.domains),),
        seeds=(seed,),
        tokens=steps * RECIPE.tokens_per_step,
    )
    return Work(key, job.to_json(), str(folder / key), identity=f"{steps}-{seed}")


def attempts(piece: Work) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(piece.folder) / ATTEMPTS).read_text().splitlines()]


@pytest.mark.usefixtures("ray_here")
def test_every_work_is_started_and_finished_once(text_corpus: Corpus, tmp_path: Path) -> None:
    works = [work(text_corpus, tmp_path, key, seed=n) for n, key in enumerate("abc")]
    events = list(driver.run(works, ONE))
    assert sorted(e.key for e in events if isinstance(e, driver.Started)) == ["a", "b", "c"]
    done = [e for e in events if isinstance(e, driver.Finished)]
    assert sorted(e.key for e in done) == ["a", "b", "c"]
    assert all(e.outcomes[0].result is not None for e in done)


@pytest.mark.usefixtures("ray_here")
def test_a_finished_work_is_not_trained_again(text_corpus: Corpus, tmp_path: Path) -> None:
    piece = work(text_corpus, tmp_path)
    (first,) = [e for e in driver.run([piece], ONE) if isinstance(e, driver.Finished)]
    (again,) = [e for e in driver.run([piece], ONE) if isinstance(e, driver.Finished)]
    assert again == first
    assert sum("completed" in line for line in attempts(piece)) == 1


def test_a_marker_of_another_identity_does_not_count(text_corpus: Corpus, tmp_path: Path) -> None:
    piece = work(text_corpus, tmp_path)
    list(perform(piece, attempt=1, micro_batches=1))
    assert finished(piece) is not None
    assert finished(dataclasses.replace(piece, identity="another")) is None


def test_what_a_work_keeps_is_there_before_its_marker_and_no_part_of_its_identity(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    plain = work(text_corpus, tmp_path)
    keeping = dataclasses.replace(plain, keep_tokens=("notes",), folder=str(tmp_path / "keeping"))
    for piece in (plain, keeping):
        (*_, last) = perform(piece, attempt=1, micro_batches=1)
        assert last["kind"] == "done"
    assert {p.name for p in (tmp_path / "a").glob("*.npz")} == set()
    kept, marker = (tmp_path / "keeping" / name for name in (TOKENS, MARKER))
    assert kept.stat().st_mtime_ns <= marker.stat().st_mtime_ns
    one, other = (outcomes[0].result for outcomes in map(finished, (plain, keeping)) if outcomes)
    assert one is not None
    assert other is not None
    assert one.metrics == other.metrics


@pytest.mark.usefixtures("ray_here")
def test_a_killed_worker_is_replaced_and_the_result_is_the_same(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    piece = work(text_corpus, tmp_path, "killed", steps=600)
    killed: list[int] = []

    def kill_once_it_has_a_checkpoint() -> None:
        folder = Path(piece.folder)
        while not (folder / "checkpoint.safetensors").exists():
            time.sleep(0.01)
        pid = json.loads((folder / "lock").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    thread = threading.Thread(target=kill_once_it_has_a_checkpoint)
    thread.start()
    events = list(driver.run([piece], ONE))
    thread.join()
    assert killed
    (failed,) = [e for e in events if isinstance(e, driver.Failed)]
    assert (str(failed.failure), failed.final) == ("worker_lost", False)
    (done,) = [e for e in events if isinstance(e, driver.Finished)]
    assert [line["attempt"] for line in attempts(piece)] == [1, 2, 2]

    (other,) = [
        e
        for e in driver.run([work(text_corpus, tmp_path, "whole", steps=600)], ONE)
        if isinstance(e, driver.Finished)
    ]
    result, whole = done.outcomes[0].result, other.outcomes[0].result
    assert result is not None
    assert whole is not None
    assert result.metrics == whole.metrics  # bit for bit


@pytest.mark.usefixtures("ray_here")
def test_bad_data_stops_the_study_and_names_the_place(text_corpus: Corpus, tmp_path: Path) -> None:
    piece = work(text_corpus, tmp_path)
    nowhere = dict(piece.job) | {"corpus": str(tmp_path / "nowhere")}
    with pytest.raises(CorpusError, match=r"a: .*nowhere"):
        list(driver.run([dataclasses.replace(piece, job=nowhere)], ONE))


@pytest.mark.usefixtures("ray_here")
def test_a_crash_stops_the_study_with_its_traceback(text_corpus: Corpus, tmp_path: Path) -> None:
    piece = work(text_corpus, tmp_path)
    broken = dict(piece.job) | {"tokens": "many"}
    with pytest.raises(TrainingError, match="Traceback"):
        list(driver.run([dataclasses.replace(piece, job=broken)], ONE))


@pytest.mark.usefixtures("ray_here")
def test_a_trial_larger_than_any_node_is_refused_at_once(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="1e\\+06 CPUs"):
        list(driver.run([work(text_corpus, tmp_path)], Resources(cpus=1e6)))


@pytest.mark.usefixtures("ray_here")
def test_a_diverged_proxy_is_an_outcome_and_no_score(text_corpus: Corpus, tmp_path: Path) -> None:
    piece = work(text_corpus, tmp_path)
    wild = dict(piece.job) | {"learning_rates": [1e30]}
    (done,) = [
        e
        for e in driver.run([dataclasses.replace(piece, job=wild)], ONE)
        if isinstance(e, driver.Finished)
    ]
    assert done.outcomes[0].result is None
    assert str(done.outcomes[0].failure) == "diverged"
