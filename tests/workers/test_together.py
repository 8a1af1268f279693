"""A full run in several processes: as one trains, through kills, in whatever room there is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from mixopt.core.errors import CorpusError, TrainingError
from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.core.trials import TrialResult
from mixopt.corpus.shards import Corpus
from mixopt.io import training_log
from mixopt.io.trial_files import CHECKPOINTS, CURVE, MARKER
from mixopt.models.config import ModelConfig
from mixopt.proxies.job import Job
from mixopt.workers import driver
from mixopt.workers.cluster import Resources
from mixopt.workers.full_job import SCRATCH, FullJob
from mixopt.workers.proxy_task import ATTEMPTS, Work, perform
from tests.pipelines.whole_study import ROOT, environment

pytestmark = pytest.mark.xdist_group("ray")

MODEL = ModelConfig(width=16, layers=1, heads=2, experts=2, experts_per_token=1, expert_width=16)
RECIPE = Recipe(
    sequence_length=32,
    batch_sequences=6,
    micro_batches=2,
    evaluations=3,
    evaluation_tokens=512,
    curve_tokens=512,
    precision="fp32",
    checkpoint_seconds=0.5,
)
HALF = Resources(cpus=0.5)


def work(corpus: Corpus, folder: Path, key: str = "a", steps: int = 20, processes: int = 2) -> Work:
    job = Job(
        model=MODEL,
        recipe=RECIPE,
        corpus=str(corpus.path),
        mixtures=(Mixture.uniform(corpus.domains),),
        seeds=(0,),
        tokens=steps * RECIPE.tokens_per_step,
    )
    full = FullJob(job, processes)
    verified = str(folder / "verified")
    return Work(key, full, str(folder / key), f"{steps}", keep_weights=True, verified=verified)


def result_of(events: list[driver.Event]) -> TrialResult:
    (done,) = [event for event in events if isinstance(event, driver.Finished)]
    result = done.outcomes[0].result
    assert result is not None
    return result


def alone(corpus: Corpus, folder: Path, steps: int = 20) -> TrialResult:
    """What one process comes to, without Ray."""
    (*_, last) = perform(work(corpus, folder, "alone", steps, 1), attempt=1, micro_batches=1)
    return driver.Outcome.from_json(last["outcomes"][0]).result or pytest.fail(str(last))


@pytest.mark.usefixtures("ray_here")
def test_two_processes_come_to_what_one_does_and_leave_a_log_weights_and_a_marker(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    piece = work(text_corpus, tmp_path)
    events = list(driver.run([piece], HALF))
    result, single = result_of(events), alone(text_corpus, tmp_path)
    assert result.metrics == pytest.approx(single.metrics, rel=1e-4)
    assert (result.environment["processes"], single.environment["processes"]) == ("2", "1")
    assert any(isinstance(event, driver.Progressed) for event in events)

    folder = Path(piece.folder)
    kept = {path.name for path in folder.iterdir()} - {"lock"}
    weights = {"model.safetensors", "model.json"}
    assert kept == {ATTEMPTS, CURVE, MARKER, training_log.LOG, *weights}
    reports = training_log.read(folder)
    assert [r["metrics"] != {} for r in reports].count(True) == RECIPE.evaluations
    assert reports[-1]["step"] == 20
    assert result_of(list(driver.run([piece], HALF))) == result  # trains nothing


@pytest.mark.usefixtures("ray_here")
def test_more_processes_than_the_cluster_can_hold_are_refused_before_anything_starts(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    piece = work(text_corpus, tmp_path, processes=3)
    with pytest.raises(TrainingError, match=r"room for .* processes .* 3 are asked for") as error:
        list(driver.run([piece], Resources(cpus=(os.cpu_count() or 1) / 2)))
    assert error.value.where == "promote.resources"
    assert not Path(piece.folder).exists()


def kill_once_there(path: Path, folder: Path) -> threading.Thread:
    """Kills the first process of the run in `folder` once `path` matches something."""

    def kill() -> None:
        while not list(path.parent.glob(path.name)):
            time.sleep(0.01)
        os.kill(json.loads((folder / "lock").read_text())["pid"], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("then", [1, 3])
def test_a_run_killed_in_two_processes_goes_on_in_others(
    then: int, text_corpus: Corpus, tmp_path: Path
) -> None:
    piece = work(text_corpus, tmp_path, steps=400)
    folder = Path(piece.folder)
    thread = kill_once_there(folder / CHECKPOINTS / "step-*", folder)
    events = list(driver.run([piece], Resources(cpus=0.5, attempts=1)))
    thread.join()
    (failed,) = [event for event in events if isinstance(event, driver.Failed)]
    assert (str(failed.failure), failed.final) == ("worker_lost", True)
    assert list((folder / CHECKPOINTS).glob("step-*"))
    resumed = result_of(list(driver.run([work(text_corpus, tmp_path, "a", 400, then)], HALF)))
    assert resumed.environment["processes"] == str(then)
    whole = alone(text_corpus, tmp_path, 400)
    assert resumed.metrics == pytest.approx(whole.metrics, rel=1e-4)
    for point, other in zip(resumed.curve, whole.curve, strict=True):
        assert point.metrics == pytest.approx(other.metrics, rel=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_killed_process_is_replaced_by_the_same_driver(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    piece = work(text_corpus, tmp_path, steps=400)
    folder = Path(piece.folder)
    thread = kill_once_there(folder / CHECKPOINTS / "step-*", folder)
    events = list(driver.run([piece], HALF))
    thread.join()
    (failed,) = [event for event in events if isinstance(event, driver.Failed)]
    assert (str(failed.failure), failed.final) == ("worker_lost", False)
    assert result_of(events).metrics == pytest.approx(
        alone(text_corpus, tmp_path, 400).metrics, rel=1e-4
    )


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_driver_that_is_stopped_leaves_nothing_of_ray_train(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    piece = work(text_corpus, tmp_path, steps=4000)
    scratch = Path(piece.folder) / SCRATCH
    events = driver.run([piece], HALF)
    assert isinstance(events, Generator)
    next(event for event in events if isinstance(event, driver.Progressed) and event.tokens)
    assert scratch.exists()
    events.close()  # as Ctrl-C does
    time.sleep(3)
    assert not scratch.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_broken_data_stops_the_run_with_the_file_named(text_corpus: Corpus, tmp_path: Path) -> None:
    shutil.copytree(text_corpus.path, tmp_path / "corpus")
    corpus = Corpus.open(tmp_path / "corpus")
    shard = corpus.path / corpus.manifest.domains["law"].train.path
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(CorpusError, match=f"{shard.name}: was changed"):
        list(driver.run([work(corpus, tmp_path)], HALF))


# in processes of their own: this cluster is not the one that other tests share
KILLED_DRIVER = """
import signal, subprocess, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from ray.util import list_named_actors, placement_group_table
from mixopt.corpus.shards import Corpus
from mixopt.io.trial_files import CHECKPOINTS
from mixopt.workers import driver
from tests.workers.test_together import HALF, work

corpus, folder, log, address = sys.argv[1:5]
piece = work(Corpus.open(corpus), Path(folder), steps=400)
if address:
    ray.init(address=address, log_to_driver=False)
    for event in driver.run([piece], HALF):
        pass
    sys.exit()
log = Path(log).open("w", buffering=1)  # Ray prints on stdout too
cluster = Cluster(initialize_head=True, head_node_args=dict(
    num_cpus=1, include_dashboard=False, object_store_memory=128 * 1024**2))
child = subprocess.Popen([sys.executable, *sys.orig_argv[1:3], *sys.argv[1:4], cluster.address])
while not list(Path(piece.folder).glob(f"{CHECKPOINTS}/step-*")):
    time.sleep(0.05)
child.send_signal(signal.SIGKILL)
child.wait()
ray.init(address=cluster.address, log_to_driver=False)

def left():
    groups = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
    actors = [a["name"] for a in list_named_actors(all_namespaces=True)]
    return groups or [name for name in actors if "Coordinator" not in name] or (
        ray.available_resources().get("CPU") != 1)

began = time.monotonic()
while left() and time.monotonic() - began < 90:
    time.sleep(0.5)
print("left", left() or "nothing", file=log)
for event in driver.run([piece], HALF):
    if isinstance(event, driver.Finished):
        print("finished", event.outcomes[0].result is not None, file=log)
time.sleep(3)
print("left", left() or "nothing", file=log)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_killed_driver_leaves_nothing_on_a_cluster_that_lives_on_and_another_goes_on(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", KILLED_DRIVER, str(text_corpus.path), str(tmp_path), str(log)]
    done = subprocess.run(
        [*command, ""], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert log.read_text().splitlines() == ["left nothing", "finished True", "left nothing"]
