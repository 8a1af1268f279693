"""A full run in several processes: Ray Train places and connects them, the folder is the truth.

    driver ──► leader (this task, no CPU) ──► TorchTrainer ──► processes, one for each GPU or share
       ▲             │                                             │ training log, checkpoints,
       └── messages ─┴─────────── reads the training log ◄─────────┘ completion marker: first one's

An attempt ends with the first process that fails; the driver judges and tries again, and the
processes go on from the newest checkpoint, in as many as there is room for. Ray Train keeps
nothing: no checkpoint is its own, and no failure of a process is retried by it.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import ray

from mixopt.core.errors import MixoptError
from mixopt.core.trials import Failure
from mixopt.io import locks
from mixopt.io.training_log import LogReader
from mixopt.workers.cluster import Resources
from mixopt.workers.full_job import SCRATCH, FullJob
from mixopt.workers.proxy_task import (
    LOCK_PATIENCE_SECONDS,
    Work,
    failed,
    failure_of,
    finished,
    hand_out,
    note_attempt,
    verify,
)

READ_SECONDS = 1.0
# What torch raises in processes whose peer is gone, beside its own classes.
PEER_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote peer")

# The cause comes first: processes whose peer failed fail as well.
ORDER = (
    Failure.BAD_DATA,
    Failure.OUT_OF_MEMORY,
    Failure.CRASHED,
    Failure.WORKER_LOST,
)


def lead(
    work: Work, attempt: int, micro_batches: int, processes: int, resources: Resources
) -> Iterator[dict[str, Any]]:
    """Train `work` in so many processes with `resources` each, yielding as `perform` does."""
    before = finished(work)
    if before is not None:
        yield _done(work)
        return
    assert isinstance(work.job, FullJob)
    if processes < work.job.processes:
        yield _note(
            f"trains in {processes} of {work.job.processes} processes: "
            "the cluster has no room for more"
        )
    log, ended = LogReader(Path(work.folder)), threading.Event()
    log.skip()
    errors: list[BaseException] = []

    def fit() -> None:
        try:
            _fit(work, attempt, micro_batches, processes, resources)
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    threading.Thread(target=fit, name="training", daemon=True).start()
    while not ended.wait(READ_SECONDS):
        yield from _messages(log)
    yield from _messages(log)
    yield _judged(errors[0]) if errors else _done(work)


def _fit(
    work: Work, attempt: int, micro_batches: int, processes: int, resources: Resources
) -> None:
    """Run one attempt to its end.

    Raises:
        TrainingFailedError: of Ray Train, if a process failed.
    """
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import FailureConfig  # whose fields type checkers know

    each = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
    scratch = Path(work.folder) / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)  # of an attempt that was killed
    scratch.mkdir(parents=True)
    try:
        TorchTrainer(
            partial(_process, work, attempt, micro_batches, resources),
            torch_config=TorchConfig(backend="nccl" if resources.gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=processes,
                use_gpu=bool(resources.gpus),
                resources_per_worker=each,
            ),
            run_config=RunConfig(
                name=f"attempt-{attempt}",
                storage_path=str(scratch),
                failure_config=FailureConfig(max_failures=0, max_preemption_failures=0),
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _process(work: Work, attempt: int, micro_batches: int, resources: Resources) -> None:
    """What each process does; all write to the work's folder what is theirs."""
    import torch
    from ray.train.torch import get_device

    from mixopt.proxies.full_run.world import World

    assert isinstance(work.job, FullJob)
    folder = Path(work.folder)
    torch.set_num_threads(resources.threads)
    world = World.current(get_device() if resources.gpus else "cpu")
    with ExitStack() as stack:
        if world.first:
            lock = locks.hold(folder / "lock", work.key, patience=LOCK_PATIENCE_SECONDS)
            stack.enter_context(lock)
            note_attempt(work, attempt)
        world.all_agree(True)
        verify(work)
        outcome = work.job.train(
            folder, world, lambda _: None, micro_batches, keep_weights=work.keep_weights
        )
        if world.first:
            hand_out(work, [outcome], attempt)
        world.all_agree(True)


def _messages(log: LogReader) -> Iterator[dict[str, Any]]:
    """The newest report of the log, and those before it that have a note."""
    reports = log.new()
    for number, report in enumerate(reports, 1):
        if report.get("note") or number == len(reports):
            yield {"kind": "progress"} | report


def _note(text: str) -> dict[str, Any]:
    silent = {"tokens": 0, "tokens_per_second": 0.0, "phase": "training"}
    return {"kind": "progress", **silent, "note": text}


def _done(work: Work) -> dict[str, Any]:
    outcomes = finished(work)
    if outcomes is None:
        message = f"its processes ended, and {work.folder} has no completion marker of theirs"
        return failed(Failure.CRASHED, message)
    return {"kind": "done", "outcomes": [outcome.to_json() for outcome in outcomes]}


def _judged(error: BaseException) -> dict[str, Any]:
    """The message of a failed attempt: where several processes failed, of the cause."""
    from ray.train import ControllerError, WorkerGroupError
    from ray.train.v2.api.exceptions import PreemptionError

    if isinstance(error, PreemptionError):
        return failed(Failure.WORKER_LOST, f"its node is taken away: {error}")
    if not isinstance(error, WorkerGroupError):  # its controller: too few resources, its node
        lost = isinstance(error, ray.exceptions.RayError | ControllerError)
        return failed(Failure.WORKER_LOST if lost else Failure.CRASHED, str(error))
    kinds = {rank: _failure(found) for rank, found in error.worker_failures.items()}
    rank = min(kinds, key=lambda rank: (ORDER.index(kinds[rank]), rank))
    cause = error.worker_failures[rank]
    unexplained = kinds[rank] is Failure.CRASHED and not isinstance(cause, MixoptError)
    return failed(kinds[rank], str(error) if unexplained else f"process {rank}: {cause}")


def _failure(error: BaseException) -> Failure:
    found = getattr(error, "health_check_failure", error)  # Ray Train's, of a process that is gone
    if isinstance(found, ray.exceptions.OutOfMemoryError):
        return Failure.OUT_OF_MEMORY
    if isinstance(error, ray.exceptions.RayError) or type(error).__name__ in (
        "WorkerHealthCheckFailedError",
        "WorkerHealthCheckTimeoutError",
        "DistNetworkError",
        "DistBackendError",
    ):
        return Failure.WORKER_LOST
    if isinstance(error, RuntimeError) and any(words in str(error) for words in PEER_GONE):
        return Failure.WORKER_LOST
    return failure_of(error)
