"""The driver's event loop: keeps the cluster full, turns what Ray streams back into events.

    works ──► Ray tasks ──► events (Started, Progressed, Finished, Failed) ──► whoever consumes them

It records nothing itself. One Ray task per piece of work, which for a full run leads several
processes (`together`); one retry policy per class of failure:

    diverged        final: the recipe, not the machine, is to blame; the search learns to stay away
    out of memory   again with twice the micro-batches, while the batch can still be split; whoever
                    consumes may then halve a cohort
    worker lost     again, wherever there is room; final after `attempts` losses on living nodes.
                    A loss with its node counts for nothing; while no node is left, the driver waits
    bad data        raised at once, naming file and line; what runs is left to its checkpoints
    broken contract raised at once, naming the file of the study's own trainer that is wrong
    crashed         raised at once, with the worker's traceback
"""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import ObjectRefGenerator

from mixopt.core.errors import CorpusError, TrainingError
from mixopt.core.trials import Failure, Outcome
from mixopt.workers.absence import Absence
from mixopt.workers.cluster import (
    Resources,
    all_answer,
    check_connection,
    head_answers,
    lacking,
    node_ids,
    slots,
    too_small,
)
from mixopt.workers.full_job import SCRATCH, FullJob
from mixopt.workers.own_job import OwnJob
from mixopt.workers.proxy_task import Work, perform
from mixopt.workers.together import lead

WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class Started:
    """A worker began an attempt at `key`."""

    key: str
    attempt: int


@dataclass(frozen=True)
class Progressed:
    """Each proxy of `key` has trained `tokens` tokens so far; the speed is that of all of them.

    Of the tokens, `resumed` were trained before this attempt.
    """

    key: str
    tokens: int
    tokens_per_second: float
    phase: str = ""
    note: str = ""  # what whoever runs the study should know
    resumed: int = 0


@dataclass(frozen=True)
class Finished:
    """`key` is done, with an outcome per proxy: its result, or that it diverged."""

    key: str
    outcomes: Sequence[Outcome]


@dataclass(frozen=True)
class Failed:
    """An attempt at `key` failed, perhaps with its node; `final` if there will be no other."""

    key: str
    failure: Failure
    message: str
    final: bool
    node_lost: bool = False


@dataclass(frozen=True)
class Waiting:
    """No node is left that can train; `message` says so."""

    message: str


Event = Started | Progressed | Finished | Failed | Waiting


@dataclass
class _Attempt:
    work: Work
    number: int = 0
    micro_batches: int = 1
    failures: int = 0  # that count
    nodes: frozenset[str] = field(default_factory=frozenset)  # where it may run; then where it does
    pid: int = 0

    @classmethod
    def at(cls, work: Work) -> _Attempt:
        """Before the first attempt at `work`."""
        return cls(work, micro_batches=work.job.micro_batches)


def run(works: Sequence[Work], resources: Resources) -> Iterator[Event]:
    """Train all `works` on the connected cluster, yielding events as they come.

    Raises:
        CorpusError: a worker met bad data.
        TrainingError: a worker crashed, no node can hold a single trial, none came back, or Ray is
            gone.
    """
    if not works:
        return
    check_connection()
    if too_small(resources):
        raise TrainingError(
            f"no node of the cluster has {resources.each}",
            where="ray.cpus_per_trial, ray.gpus_per_trial",
            hint="Ask for less per trial in the study file, or add nodes",
        )
    each = max(map(processes, works))
    _check_room(each, resources)
    tasks = _Tasks.asking(resources)
    waiting = deque(_Attempt.at(work) for work in works)
    running: dict[ObjectRefGenerator, _Attempt] = {}
    absence = Absence()
    try:
        while waiting or running:
            check_connection()
            # A few more than fit, so that a free slot never waits for us.
            there = slots(resources)
            if there < 1 and absence.begins():
                yield Waiting(absence.message)
            most = there + 2 if each == 1 else max(1, there // each)  # processes wait for no place
            room = most - len(running) if there and not absence.pausing else 0
            for _ in range(min(room, len(waiting))):
                attempt = waiting.popleft()
                attempt.number += 1
                attempt.nodes, attempt.pid = node_ids(), 0
                running[tasks.submit(attempt)] = attempt
            if not running:
                time.sleep(WAIT_SECONDS)
                continue
            ready, _ = ray.wait(list(running), num_returns=1, timeout=WAIT_SECONDS)
            for stream in ready:
                event = _next_event(stream, running[stream], resources)
                if isinstance(event, Started | Progressed):
                    absence.ends()
                    yield event
                    continue
                attempt = running.pop(stream)
                if isinstance(event, Failed) and event.node_lost:
                    absence.loses_a_node()
                if isinstance(event, Failed) and not event.final:
                    waiting.append(attempt)
                yield event
    finally:
        if head_answers():  # else Ray waits for it, and ends this process after a minute
            for stream, attempt in running.items():
                ray.cancel(stream, force=True)  # which cleans up nothing
                shutil.rmtree(Path(attempt.work.folder) / SCRATCH, ignore_errors=True)


def processes(work: Work) -> int:
    """How many processes train it together."""
    return work.job.processes if isinstance(work.job, FullJob) else 1


def _check_room(asked: int, resources: Resources) -> None:
    """Refuse a full run in so many processes that the cluster, as it is now, could never hold.

    Raises:
        TrainingError: it has nodes, and room for fewer.
    """
    if what := lacking(resources, asked):
        raise TrainingError(
            what,
            where="promote.resources",
            hint="Ask for fewer or smaller processes in the study file (what was trained goes on "
            "in any number of them), or add nodes",
        )


@dataclass(frozen=True)
class _Tasks:
    """What attempts are handed to: a task that trains, or one that leads those that do."""

    resources: Resources
    alone: Any
    leading: Any

    @classmethod
    def asking(cls, resources: Resources) -> _Tasks:
        """Tasks whose trainings, or processes, have `resources` each."""
        # retries are ours: they are counted, classified and reported
        options: dict[str, Any] = {"num_returns": "streaming", "max_retries": 0}
        leading = ray.remote(_leading).options(num_cpus=0, **options)
        alone = ray.remote(_on_worker).options(
            num_cpus=resources.cpus, num_gpus=resources.gpus, **options
        )
        return cls(resources, alone, leading)

    def submit(self, attempt: _Attempt) -> ObjectRefGenerator:
        """Hand the attempt to Ray; after a loss a full run takes the room that is left."""
        asked, resources = processes(attempt.work), self.resources
        what = (attempt.work, attempt.number, attempt.micro_batches)
        if asked > 1:
            there = max(1, min(asked, slots(resources)))
            stream: ObjectRefGenerator = self.leading.remote(*what, there, resources)
        else:
            stream = self.alone.remote(*what, resources.threads, resources.device)
        return stream


def _leading(
    work: Work, attempt: int, micro_batches: int, processes: int, resources: Resources
) -> Iterator[dict[str, Any]]:
    """`lead`, after word that it begins: where its processes run is for Ray to say."""
    yield {"kind": "started", "nodes": None, "pid": 0}
    yield from lead(work, attempt, micro_batches, processes, resources)


def _on_worker(
    work: Work, attempt: int, micro_batches: int, threads: int, device: str
) -> Iterator[dict[str, Any]]:
    """`perform`, after word of where it runs."""
    node = ray.get_runtime_context().get_node_id()
    yield {"kind": "started", "nodes": [node], "pid": os.getpid()}
    yield from perform(work, attempt, micro_batches, threads, device)


def _next_event(stream: ObjectRefGenerator, attempt: _Attempt, resources: Resources) -> Event:
    work = attempt.work
    try:
        message: Mapping[str, Any] = ray.get(next(stream))
    except StopIteration:
        message = {"kind": "failed", "failure": "worker_lost", "message": "the stream ended early"}
    except ray.exceptions.OutOfMemoryError as error:
        message = {"kind": "failed", "failure": "out_of_memory", "message": str(error)}
    except ray.exceptions.RayTaskError as error:
        message = {"kind": "failed", "failure": "crashed", "message": str(error)}
    except (ray.exceptions.RuntimeEnvSetupError, ray.exceptions.TaskUnschedulableError) as error:
        message = {"kind": "failed", "failure": "crashed", "message": str(error)}
    except ray.exceptions.RayError as error:
        message = {"kind": "failed", "failure": "worker_lost", "message": str(error)}
    if message["kind"] == "started":
        attempt.pid = message["pid"]
        if message["nodes"] is not None:
            attempt.nodes = frozenset(message["nodes"])
        return Started(work.key, attempt.number)
    if message["kind"] == "progress":
        return Progressed(
            work.key,
            message["tokens"],
            message["tokens_per_second"],
            message["phase"],
            message["note"],
            message.get("resumed", 0),
        )
    if message["kind"] == "done":
        return Finished(work.key, [Outcome.from_json(o) for o in message["outcomes"]])
    failure = Failure(message["failure"])
    return _judge(failure, message["message"], attempt, resources)


def _correct(work: Work) -> str:
    """What to do about a trainer that breaks the contract."""
    if isinstance(work.job, OwnJob) and work.job.job.role == "promote":
        return (
            "Another trainer (its files, settings, version) is another full run, from its "
            "beginning: see docs/trainers.md"
        )
    return (
        "Or correct the trainer (docs/trainers.md) and run the same command again; once a training "
        "is recorded, other files are other trainings: give the study another name"
    )


def _judge(failure: Failure, message: str, attempt: _Attempt, resources: Resources) -> Failed:
    work = attempt.work
    if failure is Failure.BAD_DATA:
        raise CorpusError(message.rstrip("."), where=work.key)
    if failure is Failure.BROKEN_CONTRACT:
        raise TrainingError(
            message.rstrip("."),
            where=f"{work.key} in {work.folder}",
            hint=_correct(work),
        )
    if failure is Failure.CRASHED:
        raise TrainingError(
            f"the worker crashed:\n{message.rstrip('. ')}",
            where=f"{work.key} in {work.folder}",
            hint="What was trained is kept; remove the cause, and run the same command again",
        )
    if failure is Failure.WORKER_LOST:
        if not all_answer(attempt.nodes):
            return Failed(work.key, failure, message, final=False, node_lost=True)
        if attempt.pid:
            message += f"\nIts log: session_latest/logs/worker-*-{attempt.pid}.err in Ray's folder"
    attempt.failures += 1
    final = attempt.failures >= resources.attempts
    if failure is Failure.OUT_OF_MEMORY:
        attempt.micro_batches = work.job.smaller(attempt.micro_batches)
        final = final or attempt.micro_batches == 0
    return Failed(work.key, failure, message, final)
