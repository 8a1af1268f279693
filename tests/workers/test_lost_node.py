"""A study outlives its nodes: a lost one costs no attempt, and without any the driver waits.

Without Ray's head it stops, in seconds.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mixopt.corpus.shards import Corpus
from tests.pipelines.whole_study import ROOT, environment

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]

# in a process of its own: this cluster is not the one that other tests share
LOSE_NODE_AND_HEAD = """
import sys
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from mixopt.corpus.shards import Corpus
from mixopt.core.errors import TrainingError
from mixopt.io.trial_files import CHECKPOINT
from tests.workers.test_driver import work
from mixopt.workers import driver
from mixopt.workers.cluster import Resources

SMALL = dict(include_dashboard=False, object_store_memory=128 * 1024**2)
cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=0, **SMALL))
node = cluster.add_node(num_cpus=1, object_store_memory=SMALL["object_store_memory"])
ray.init(address=cluster.address, log_to_driver=False)
log = Path(sys.argv[3]).open("w", buffering=1)  # Ray prints on stdout too
piece = work(Corpus.open(sys.argv[1]), Path(sys.argv[2]), steps=600)
for event in driver.run([piece], Resources(cpus=1, attempts=1)):
    match event:
        case driver.Progressed() if node and (Path(piece.folder) / CHECKPOINT).exists():
            cluster.remove_node(node, allow_graceful=False)
            node = None
        case driver.Failed():
            print("failed", event.final, event.node_lost, file=log)
        case driver.Waiting():
            print("waiting", file=log)
            cluster.add_node(num_cpus=1, object_store_memory=SMALL["object_store_memory"])
        case driver.Finished():
            print("finished", event.outcomes[0].result is not None, file=log)
piece = work(Corpus.open(sys.argv[1]), Path(sys.argv[2]), "b", steps=60000)
try:
    for event in driver.run([piece], Resources(cpus=1, attempts=1)):
        if isinstance(event, driver.Progressed):
            cluster.head_node.kill_gcs_server(check_alive=False)
except TrainingError as error:
    print(error.what.split(":")[0], file=log)
ray.shutdown()
cluster.shutdown()
"""


def test_a_lost_node_costs_no_attempt_and_is_waited_for_and_a_lost_head_stops_the_driver(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    events = tmp_path / "events"
    arguments = map(str, (text_corpus.path, tmp_path, events))
    command = [sys.executable, "-c", LOSE_NODE_AND_HEAD, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    node_lost = ["failed False True", "waiting", "finished True"]
    assert events.read_text().splitlines() == [*node_lost, "Ray's head is gone"]
