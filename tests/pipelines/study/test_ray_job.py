"""A study as a job on a Ray cluster that asks for a token: what docs/cluster.md tells to do."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mixopt.core.trials import State
from mixopt.corpus.shards import Corpus
from mixopt.study.settings import load_study
from tests.pipelines.whole_study import (
    PATIENCE,
    ROOT,
    environment,
    ledger_trials,
    succeeded,
    wait_for,
    write_study,
)

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster of one node, and the environment that may use it."""

    port: int
    dashboard: str
    environment: dict[str, str]

    def submit(
        self, *entrypoint: str | Path, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`ray job submit` of the checkout."""
        return ray(
            environment or self.environment,
            *("job", "submit", "--address", self.dashboard, "--working-dir", str(ROOT)),
            *("--", *map(str, entrypoint)),
        )


def ray(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "ray", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


def answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head node with a token of its own, apart from every other Ray on this machine."""
    folder = Path(tempfile.mkdtemp(prefix="mx-"))  # short: Ray's sockets lie below it
    with_token = {
        **environment(),
        "PYTHONPATH": "",  # the code comes with the job
        "HOME": str(folder),  # where the token is kept
        "RAY_AUTH_MODE": "token",
        "PATH": f"{BIN}:{environment()['PATH']}",  # an activated environment
    }
    assert succeeded(ray(with_token, "get-auth-token", "--generate")).stdout.strip()
    gcs, dashboard, client, agent = free_ports(4)
    log = (folder / "head.log").open("w")
    options = {
        "num-cpus": 2,
        "temp-dir": folder / "ray",
        "node-ip-address": "127.0.0.1",
        "port": gcs,
        "dashboard-port": dashboard,
        "ray-client-server-port": client,
        "dashboard-agent-listen-port": agent,
        "min-worker-port": 0,  # any that is free
        "max-worker-port": 0,
        "object-store-memory": 128 * 1024**2,
    }
    head = subprocess.Popen(
        [
            *(BIN / "ray", "start", "--head", "--block", "--disable-usage-stats"),
            *(f"--{name}={value}" for name, value in options.items()),
        ],
        env=with_token,
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: answers(dashboard) and answers(agent), head)
        yield Cluster(gcs, f"http://127.0.0.1:{dashboard}", with_token)
    finally:
        family = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
        head.terminate()
        _, alive = psutil.wait_procs(family, timeout=20)
        for process in alive:
            process.kill()
        head.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_study_runs_as_a_job_and_keeps_everything_beside_its_file(
    cluster: Cluster, text_corpus: Corpus, tmp_path: Path
) -> None:
    file = write_study(
        tmp_path / "job.yaml",
        text_corpus.path,
        search={"trials": 3, "repeats": 0, "rounds": 0},
        promote=None,
        ray={"address": None},
    )
    done = succeeded(cluster.submit("python", "-m", "mixopt", "run", file))
    assert re.search(rf"job: Ray at \S+:{cluster.port}\n", done.stdout), done.stdout
    assert "mixture is selected" in done.stdout
    trials = ledger_trials(file)
    assert len(trials) >= 3
    assert {t.state for t in trials} == {State.COMPLETE}
    assert (load_study(file).home / "report.html").exists()


@pytest.mark.slow
def test_a_study_that_cannot_run_fails_its_job_with_one_clean_message(
    cluster: Cluster, tmp_path: Path
) -> None:
    done = cluster.submit("python", "-m", "mixopt", "run", tmp_path / "nowhere.yaml")
    assert done.returncode == 1
    assert f"error {tmp_path}/nowhere.yaml" in done.stdout
    assert 'File "' not in done.stdout  # no traceback of ours


@pytest.mark.slow
def test_a_job_runs_the_checkout_that_it_was_sent(cluster: Cluster) -> None:
    done = succeeded(
        cluster.submit("python", "-c", "import mixopt.workers; print(mixopt.workers.__file__)")
    )
    (place,) = [line for line in done.stdout.splitlines() if line.endswith("__init__.py")]
    assert place.startswith(cluster.environment["HOME"])


def test_without_the_token_a_job_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    mode_only = {**cluster.environment, "HOME": str(tmp_path)}
    nothing = {**mode_only, "RAY_AUTH_MODE": "disabled"}
    wrong = {**mode_only, "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    for stranger in (mode_only, nothing, wrong):
        done = cluster.submit("touch", tmp_path / "was-here", environment=stranger)
        assert done.returncode != 0
        assert "oken" in done.stdout + done.stderr
    assert not (tmp_path / "was-here").exists()
