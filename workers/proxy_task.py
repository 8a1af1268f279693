"""The Ray task that trains: one job, streamed progress, a completion marker written last.

An attempt is idempotent. It holds the folder's lock, so that a worker which outlives its killed
driver and the one that takes over never write at once; it goes on from the folder's checkpoint; and
where the completion marker of the same identity is there, it returns that and trains nothing.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt import files, locks
from mixopt.errors import CorpusError, LedgerError
from mixopt.trials import Failure, Outcome

MARKER = "done.json"
ATTEMPTS = "attempts.jsonl"
SECONDS_BETWEEN_REPORTS = 1.0
LOCK_PATIENCE_SECONDS = 120.0  # a dead driver's worker ends within a few seconds; NFS takes longer


@dataclass(frozen=True)
class Work:
    """A training for a worker, and where it happens.

    Attributes:
        key: names it in events: `trial 12`, `expert law`.
        job: `proxies.job.Job` as JSON-able values.
        folder: absolute path that every node sees.
        identity: what the folder's checkpoint and marker must carry to count.
        keep_weights: whether the final weights stay.
        keep_tokens: validation domains of which the final loss of every token stays.
    """

    key: str
    job: Mapping[str, Any]
    folder: str
    identity: str
    keep_weights: bool = False
    keep_tokens: tuple[str, ...] = ()


def finished(work: Work) -> list[Outcome] | None:
    """The outcomes in `work`'s completion marker; None if it has none."""
    try:
        said = json.loads((Path(work.folder) / MARKER).read_text())
    except (OSError, ValueError):
        return None
    if said.get("identity") != work.identity:
        return None
    return [Outcome.from_json(outcome) for outcome in said["outcomes"]]


def perform(
    work: Work, attempt: int, micro_batches: int, threads: int = 1, device: str = "cpu"
) -> Iterator[dict[str, Any]]:
    """Train `work`, yielding small dicts: `progress` …, then one `done` or `failed`.

    Nothing is raised for what can be classified; a `failed` names its `Failure`.
    """
    # The training runs on a thread of its own and this generator drains a queue, because Ray
    # streams what a generator yields and the step loop reports by calling back.
    box: queue.Queue[dict[str, Any]] = queue.Queue()

    def run() -> None:
        try:
            outcomes = _train(work, attempt, micro_batches, threads, device, box)
            box.put({"kind": "done", "outcomes": [o.to_json() for o in outcomes]})
        except CorpusError as error:
            box.put(_failed(Failure.BAD_DATA, str(error)))
        except LedgerError as error:  # the folder's lock did not come free
            box.put(_failed(Failure.WORKER_LOST, str(error)))
        except MemoryError as error:
            box.put(_failed(Failure.OUT_OF_MEMORY, str(error)))
        except (
            Exception
        ) as error:  # every other error is told, with its traceback, and stops the study
            memory = type(error).__name__ == "OutOfMemoryError" or "can't allocate" in str(error)
            kind = Failure.OUT_OF_MEMORY if memory else Failure.CRASHED
            box.put(_failed(kind, traceback.format_exc()))

    thread = threading.Thread(target=run, name="training", daemon=True)
    thread.start()
    told = 0.0
    while True:
        said = box.get()
        if said["kind"] != "progress":
            yield said
            return
        if time.monotonic() - told >= SECONDS_BETWEEN_REPORTS:
            told = time.monotonic()
            yield said


def _failed(failure: Failure, message: str) -> dict[str, Any]:
    return {"kind": "failed", "failure": str(failure), "message": message}


def _train(
    work: Work,
    attempt: int,
    micro_batches: int,
    threads: int,
    device: str,
    box: queue.Queue[dict[str, Any]],
) -> list[Outcome]:
    from proxies.job import Job
    from proxies.training import CHECKPOINT, Progress, train

    folder = Path(work.folder)
    with locks.hold(folder / "lock", work.key, patience=LOCK_PATIENCE_SECONDS):
        before = finished(work)
        if before is not None:
            return before
        job = Job.from_json(work.job)
        if micro_batches > job.recipe.micro_batches:
            recipe = dataclasses.replace(job.recipe, micro_batches=micro_batches)
            job = dataclasses.replace(job, recipe=recipe)
        started = time.time()
        _append(folder / ATTEMPTS, {"attempt": attempt, "started": started})

        def report(progress: Progress) -> None:
            box.put({"kind": "progress"} | dataclasses.asdict(progress))

        outcomes = train(
            job,
            folder,
            report,
            threads=threads,
            keep_weights=work.keep_weights,
            keep_tokens=work.keep_tokens,
            device=device,
        )
        said = {"identity": work.identity, "outcomes": [o.to_json() for o in outcomes]}
        files.write_json(folder / MARKER, said)
        _append(folder / ATTEMPTS, {"attempt": attempt, "completed": time.time()})
        (folder / CHECKPOINT).unlink(missing_ok=True)  # the marker is what counts from now on
        return outcomes


def _append(path: Path, values: Mapping[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(values) + "\n")
