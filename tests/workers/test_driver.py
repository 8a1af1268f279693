"""The driver keeps Ray busy, survives its workers, and classifies what goes wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import ray

from mixopt.core.errors import CorpusError, TrainingError
from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.core.trials import TrialResult
from mixopt.corpus.shards import Corpus
from mixopt.io import markers
from mixopt.io.token_losses import TOKENS
from mixopt.io.trial_files import CHECKPOINT, CURVE, MARKER
from mixopt.models.config import ModelConfig
from mixopt.proxies.job import Job
from mixopt.proxies.training import train
from mixopt.workers import driver
from mixopt.workers.cluster import Resources, check_address, check_connection
from mixopt.workers.proxy_task import ATTEMPTS, Work, finished, join, perform

pytestmark = pytest.mark.xdist_group("ray")

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
    return Work(key, job, str(folder / key), identity=f"{steps}-{seed}")


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
def test_a_cluster_that_is_there_is_connected_to() -> None:
    check_address(ray.get_runtime_context().gcs_address)
    check_connection()


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


def test_a_marker_of_another_shape_does_not_count(text_corpus: Corpus, tmp_path: Path) -> None:
    piece = work(text_corpus, tmp_path)
    for outcomes in ([], None, [{"result": {"metrics": {}}, "failure": None}], [{"failure": "x"}]):
        markers.write(Path(piece.folder), {"identity": piece.identity, "outcomes": outcomes})
        assert finished(piece) is None


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


def kill_at_the_first_checkpoint(piece: Work) -> tuple[threading.Thread, list[int]]:
    """Kills the worker of `piece` once it has a checkpoint; and whom it killed."""
    killed: list[int] = []

    def kill() -> None:
        folder = Path(piece.folder)
        while not (folder / CHECKPOINT).exists():
            time.sleep(0.01)
        pid = json.loads((folder / "lock").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread, killed


@pytest.mark.usefixtures("ray_here")
def test_a_killed_worker_is_replaced_and_the_result_is_the_same(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    piece = work(text_corpus, tmp_path, "killed", steps=600)
    thread, killed = kill_at_the_first_checkpoint(piece)
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


def test_a_full_disk_is_named_without_a_traceback(text_corpus: Corpus, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        (*_, last) = perform(work(text_corpus, tmp_path), attempt=1, micro_batches=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert last["kind"] == "failed"
    assert f"{CHECKPOINT}: cannot be written: File too large" in last["message"]
    assert "Traceback" not in last["message"]


def test_a_flipped_bit_of_a_shard_is_found_before_the_first_step(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    shutil.copytree(text_corpus.path, tmp_path / "corpus")
    corpus = Corpus.open(tmp_path / "corpus")
    shard = corpus.path / corpus.manifest.domains["law"].train.path
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    piece = dataclasses.replace(work(corpus, tmp_path), verified=str(tmp_path / "verified"))
    (found,) = perform(piece, attempt=1, micro_batches=1)
    assert found["failure"] == "bad_data"
    assert f"{shard}: was changed" in found["message"]
    assert "build the corpus again" in found["message"]
    shard.write_bytes(whole)
    (*_, last) = perform(piece, attempt=2, micro_batches=1)
    assert last["kind"] == "done"


@pytest.mark.usefixtures("ray_here")
def test_losses_on_a_living_node_use_up_the_attempts(text_corpus: Corpus, tmp_path: Path) -> None:
    piece = work(text_corpus, tmp_path, "killed", steps=600)
    thread, killed = kill_at_the_first_checkpoint(piece)
    events = list(driver.run([piece], Resources(cpus=1, attempts=1)))
    thread.join()
    (failed,) = [e for e in events if isinstance(e, driver.Failed)]
    assert (str(failed.failure), failed.final, failed.node_lost) == ("worker_lost", True, False)
    (log,) = re.findall(r"session_latest/(logs/worker-\S+\.err)", failed.message)
    assert str(killed[0]) in log
    folder = Path(ray._private.worker._global_node.get_session_dir_path())
    assert list(folder.glob(log))


def test_a_plug_in_that_exits_ends_its_task_with_its_traceback(
    text_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    piece = work(text_corpus, tmp_path / "work")
    model = dataclasses.replace(piece.job.model, router="leaving:Router")
    piece = dataclasses.replace(piece, job=dataclasses.replace(piece.job, model=model))
    (found,) = perform(piece, attempt=1, micro_batches=1)
    assert found["failure"] == "crashed"
    assert "SystemExit: 3" in found["message"]


@pytest.mark.usefixtures("ray_here")
def test_bad_data_stops_the_study_and_names_the_place(text_corpus: Corpus, tmp_path: Path) -> None:
    piece = work(text_corpus, tmp_path)
    nowhere = dataclasses.replace(piece.job, corpus=str(tmp_path / "nowhere"))
    with pytest.raises(CorpusError, match=r"a: .*nowhere"):
        list(driver.run([dataclasses.replace(piece, job=nowhere)], ONE))


@pytest.mark.usefixtures("ray_here")
def test_a_crash_stops_the_study_with_its_traceback(text_corpus: Corpus, tmp_path: Path) -> None:
    piece = work(text_corpus, tmp_path)
    broken = dataclasses.replace(piece.job, learning_rates=("a word",))
    with pytest.raises(TrainingError, match=r"(?s)Traceback.*Error"):
        list(driver.run([dataclasses.replace(piece, job=broken)], ONE))


@pytest.mark.usefixtures("ray_here")
def test_an_error_that_says_what_is_wrong_comes_without_a_traceback(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    piece = work(text_corpus, tmp_path)
    broken = dataclasses.replace(piece.job, initial=str(tmp_path))
    with pytest.raises(TrainingError, match="the initial state cannot be read") as error:
        list(driver.run([dataclasses.replace(piece, job=broken)], ONE))
    assert "Traceback" not in str(error.value)


@pytest.mark.usefixtures("ray_here")
def test_a_trial_larger_than_any_node_is_refused_at_once(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="1e\\+06 CPUs"):
        list(driver.run([work(text_corpus, tmp_path)], Resources(cpus=1e6)))


@pytest.mark.usefixtures("ray_here")
def test_a_diverged_proxy_is_an_outcome_and_no_score(text_corpus: Corpus, tmp_path: Path) -> None:
    piece = work(text_corpus, tmp_path)
    wild = dataclasses.replace(piece.job, learning_rates=(1e30,))
    (done,) = [
        e
        for e in driver.run([dataclasses.replace(piece, job=wild)], ONE)
        if isinstance(e, driver.Finished)
    ]
    assert done.outcomes[0].result is None
    assert str(done.outcomes[0].failure) == "diverged"


def cohort(corpus: Corpus, folder: Path, steps: int = 60) -> tuple[Work, list[Work]]:
    """Three trainings of different mixtures and seeds as one, and the same three alone."""
    each = []
    for number, name in enumerate(corpus.domains[:3]):
        piece = work(corpus, folder, name, steps=steps, seed=number // 2)
        most = {d: 0.8 if d == name else 0.2 / (len(corpus.domains) - 1) for d in corpus.domains}
        each.append(
            dataclasses.replace(
                piece, job=dataclasses.replace(piece.job, mixtures=(Mixture.of(most),))
            )
        )
    alone = [
        dataclasses.replace(one, key=f"{one.key} alone", folder=f"{one.folder}-alone")
        for one in each
    ]
    return join(each, folder / "cohort"), alone


def result(piece: Work, number: int = 0) -> TrialResult:
    outcomes = finished(piece)
    assert outcomes is not None
    found = outcomes[number].result
    assert found is not None
    return found


@pytest.mark.usefixtures("ray_here")
@pytest.mark.slow
def test_a_cohort_gives_each_the_result_and_files_of_a_training_alone(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    together, alone = cohort(text_corpus, tmp_path)
    together, *alone = (
        dataclasses.replace(w, keep_weights=True, keep_tokens=("notes",))
        for w in (together, *alone)
    )
    done = [e for e in driver.run([together, *alone], ONE) if isinstance(e, driver.Finished)]
    assert len(done) == 4
    for number, single in enumerate(alone):
        one, other = result(together, number), result(single)
        assert one.metrics == pytest.approx(dict(other.metrics), abs=2e-3)
        assert [p.step for p in one.curve] == [p.step for p in other.curve]
        assert one.curve[0].metrics == pytest.approx(dict(other.curve[0].metrics), abs=2e-3)
        here, there = Path(together.homes[number].folder), Path(single.folder)
        written = {p.name for p in there.iterdir()} - {"lock"}
        assert {p.name for p in here.iterdir()} == written
        assert len((here / CURVE).read_text().splitlines()) == RECIPE.evaluations
    spread = [result(single).metrics["bpb/notes"] for single in alone]
    assert max(spread) - min(spread) > 4e-3  # else any of them would pass for any other
    assert {p.name for p in Path(together.folder).iterdir()} == {"lock", "model.json"}
    cost = sum(result(together, n).cost.device_seconds for n in range(3))
    wall = result(together).curve[-1].seconds
    assert cost == pytest.approx(wall, rel=0.2)  # together they spent what the device did


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_cohort_whose_worker_is_killed_goes_on_and_ends_the_same(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    broken, _ = cohort(text_corpus, tmp_path / "broken", steps=600)
    whole, _ = cohort(text_corpus, tmp_path / "whole", steps=600)
    thread, killed = kill_at_the_first_checkpoint(broken)
    events = list(driver.run([broken], ONE))
    thread.join()
    assert killed
    assert [str(e.failure) for e in events if isinstance(e, driver.Failed)] == ["worker_lost"]
    list(driver.run([whole], ONE))
    for number, home in enumerate(broken.homes):
        assert result(broken, number).metrics == result(whole, number).metrics  # bit for bit
        lines = (Path(home.folder) / ATTEMPTS).read_text().splitlines()
        assert [json.loads(line)["attempt"] for line in lines] == [1, 2, 2]


@pytest.mark.usefixtures("ray_here")
@pytest.mark.slow
def test_one_of_a_cohort_that_diverges_touches_no_other(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    calm, _ = cohort(text_corpus, tmp_path / "calm")
    wild, _ = cohort(text_corpus, tmp_path / "wild")
    wild = dataclasses.replace(
        wild, job=dataclasses.replace(wild.job, learning_rates=(1e-2, 1e30, 1e-2))
    )
    ended = {e.key: e.outcomes for e in driver.run([wild], ONE) if isinstance(e, driver.Finished)}[
        wild.key
    ]
    list(driver.run([calm], ONE))
    assert [o.failure and str(o.failure) for o in ended] == [None, "diverged", None]
    for number in (0, 2):
        assert result(wild, number).metrics == result(calm, number).metrics


def test_a_cohort_that_died_while_it_handed_out_keeps_what_it_had_handed_out(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    earlier, _ = cohort(text_corpus, tmp_path / "earlier")
    list(perform(earlier, attempt=1, micro_batches=1))
    piece, _ = cohort(text_corpus, tmp_path / "now")
    train(piece.job, Path(piece.folder))  # all steps, nothing handed out
    shutil.copytree(earlier.homes[1].folder, piece.homes[1].folder)
    assert finished(piece) is None
    found = list(perform(piece, attempt=2, micro_batches=1))
    assert {s["kind"] for s in found} == {"done"}  # no step was left to report
    assert result(piece, 1) == result(earlier, 1)
    for number in (0, 2):
        assert result(piece, number).metrics == result(earlier, number).metrics
    assert len(attempts(dataclasses.replace(piece, folder=piece.homes[1].folder))) == 2


def test_trainings_of_different_shapes_are_never_one(text_corpus: Corpus, tmp_path: Path) -> None:
    one, longer = work(text_corpus, tmp_path, "a"), work(text_corpus, tmp_path, "b", steps=30)
    assert not one.joins(longer)
    with pytest.raises(TrainingError, match="different tokens"):
        join([one, longer], tmp_path / "cohort")
    cut = dataclasses.replace(one.job, token_limits={"law": 1000})
    with pytest.raises(TrainingError, match="different token_limits"):
        join([one, dataclasses.replace(one, job=cut)], tmp_path / "cohort")


def test_a_joined_training_keeps_the_rates_of_those_that_have_their_own(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    one, other = work(text_corpus, tmp_path, "a"), work(text_corpus, tmp_path, "b")
    fast = dataclasses.replace(other, job=dataclasses.replace(other.job, learning_rates=(0.5,)))
    assert join([one, other], tmp_path).job.learning_rates is None
    rates = join([one, fast], tmp_path).job.learning_rates
    assert list(rates) == [RECIPE.learning_rate, 0.5]


@pytest.mark.usefixtures("ray_here")
def test_what_never_fits_fails_after_its_batch_was_split_to_single_sequences(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    piece = work(text_corpus, tmp_path)
    model = dataclasses.replace(piece.job.model, expert_width=2**45)  # beyond any address space
    piece = dataclasses.replace(piece, job=dataclasses.replace(piece.job, model=model))
    events = [e for e in driver.run([piece], ONE) if isinstance(e, driver.Failed)]
    assert [(str(e.failure), e.final) for e in events] == [
        ("out_of_memory", False),
        ("out_of_memory", False),
        ("out_of_memory", True),
    ]  # in 1, 2 and 4 parts
