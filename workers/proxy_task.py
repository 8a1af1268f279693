"""The Ray task that trains: one job, streamed progress, a completion marker written last.

An attempt is idempotent. It holds the folder's lock, so that a worker which outlives its killed
driver and the one that takes over never write at once; it goes on from the folder's checkpoint; and
where the completion marker of the same identity is there, it returns that and trains nothing.

Trainings that were joined to a cohort share lock and checkpoint, in a folder of the cohort's own.
At the end each gets its curve, what it keeps and its marker into the folder that it would have
had alone, one after the other; the checkpoint goes last, so that a kill in between costs nothing.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import shutil
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.core.errors import CorpusError, LedgerError, MixoptError, is_out_of_memory
from mixopt.core.trials import Failure, Outcome
from mixopt.io import files, locks, markers
from mixopt.io.token_losses import TOKENS
from mixopt.io.trial_files import CHECKPOINT, CHECKPOINTS, CURVE
from mixopt.proxies.job import Job
from mixopt.trainers import run as trainers
from mixopt.trainers.failures import TrainerError
from mixopt.workers.full_job import SCRATCH, FullJob
from mixopt.workers.own_job import OwnJob

ATTEMPTS = "attempts.jsonl"
SECONDS_BETWEEN_REPORTS = 1.0
LOCK_PATIENCE_SECONDS = 120.0  # a dead driver's worker ends within a few seconds; NFS takes longer


@dataclass(frozen=True)
class Home:
    """Where a proxy's result goes.

    Attributes:
        folder: absolute path that every node sees.
        identity: what its marker must carry to count.
    """

    folder: str
    identity: str

    def outcome(self) -> Outcome | None:
        """What its completion marker says.

        None if it has none that counts, so that it trains again: another training's, or one of
        another shape.
        """
        record = markers.read(Path(self.folder))
        if record is None or record.get("identity") != self.identity:
            return None
        try:
            return Outcome.from_json(record["outcomes"][0])
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            return None


@dataclass(frozen=True)
class Work:
    """A training for a worker, and where it happens.

    Attributes:
        key: names it in events: `12`, `expert law`, `4-7` for trials 4 to 7 in one cohort.
        job: what is trained: proxies, a full run, or by a trainer of the user's.
        folder: absolute path that every node sees: of lock and checkpoint.
        identity: what the folder's checkpoint and marker must carry to count.
        keep_weights: whether the final weights stay.
        keep_tokens: validation domains of which the final loss of every token stays.
        verified: folder that remembers on which machines the corpus was compared with its
            checksums; empty if it is not to be.
        members: of a cohort, where the result of each proxy goes, in the order of the job's
            mixtures; empty for a single training, whose result stays in `folder`.
    """

    key: str
    job: Job | OwnJob | FullJob
    folder: str
    identity: str
    keep_weights: bool = False
    keep_tokens: tuple[str, ...] = ()
    verified: str = ""
    members: tuple[Home, ...] = ()

    @property
    def homes(self) -> tuple[Home, ...]:
        """Where the result of each proxy goes."""
        return self.members or (Home(self.folder, self.identity),)

    def joins(self, other: Work) -> bool:
        """Whether this training and `other` may be one cohort."""
        kept = (self.keep_weights, self.keep_tokens) == (other.keep_weights, other.keep_tokens)
        return kept and not self.job.differences(other.job)


def join(works: Sequence[Work], folder: Path) -> Work:
    """The cohort of `works`, training in `folder`; each keeps its own folder for its result.

    Raises:
        TrainingError: they differ in what a cohort must have in common.
    """
    first = works[0]
    if len(works) == 1:
        return first
    return dataclasses.replace(
        first,
        key=f"{first.key}-{works[-1].key}",
        job=Job.join([work.job for work in works if isinstance(work.job, Job)]),
        folder=str(folder),
        identity="+".join(work.identity for work in works),
        members=tuple(home for work in works for home in work.homes),
    )


def finished(work: Work) -> list[Outcome] | None:
    """The outcomes in `work`'s completion markers; None if one of them is missing."""
    outcomes = [home.outcome() for home in work.homes]
    there = [outcome for outcome in outcomes if outcome is not None]
    return there if len(there) == len(outcomes) else None


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
        except MixoptError as error:  # which says itself what is wrong: it needs no traceback
            box.put(failed(failure_of(error), str(error)))
        except BaseException as error:  # a plug-in's SystemExit too: else the queue waits for ever
            box.put(failed(failure_of(error), traceback.format_exc()))

    thread = threading.Thread(target=run, name="training", daemon=True)
    thread.start()
    reported_at = 0.0
    while True:
        message = box.get()
        if message["kind"] != "progress":
            yield message
            return
        if message["note"] or time.monotonic() - reported_at >= SECONDS_BETWEEN_REPORTS:
            reported_at = time.monotonic()
            yield message


def failed(failure: Failure, message: str) -> dict[str, Any]:
    """The message of an attempt that failed."""
    return {"kind": "failed", "failure": str(failure), "message": message}


def failure_of(error: BaseException) -> Failure:
    """The class of what a training raised."""
    match error:
        case TrainerError():
            return error.failure
        case CorpusError():
            return Failure.BAD_DATA
        case LedgerError():  # the folder's lock did not come free
            return Failure.WORKER_LOST
    return Failure.OUT_OF_MEMORY if is_out_of_memory(error) else Failure.CRASHED


def _train(
    work: Work,
    attempt: int,
    micro_batches: int,
    threads: int,
    device: str,
    box: queue.Queue[dict[str, Any]],
) -> list[Outcome]:
    import torch

    from mixopt.proxies.full_run.world import World
    from mixopt.proxies.training import Progress, train

    folder = Path(work.folder)
    with locks.hold(folder / "lock", work.key, patience=LOCK_PATIENCE_SECONDS):
        before = finished(work)
        if before is not None:
            return before
        job = work.job
        verify(work)
        note_attempt(work, attempt)

        def report(progress: Progress | trainers.Progress) -> None:
            box.put({"kind": "progress"} | dataclasses.asdict(progress))

        if isinstance(job, OwnJob):
            outcomes = job.train(report, threads)
        elif isinstance(job, FullJob):
            shutil.rmtree(folder / SCRATCH, ignore_errors=True)  # of several processes, killed
            torch.set_num_threads(threads)
            world, kept = World(device=torch.device(device)), work.keep_weights
            outcomes = [job.train(folder, world, report, micro_batches, keep_weights=kept)]
        else:
            if micro_batches > job.recipe.micro_batches:
                recipe = dataclasses.replace(job.recipe, micro_batches=micro_batches)
                job = dataclasses.replace(job, recipe=recipe)
            outcomes = train(
                job,
                folder,
                report,
                threads=threads,
                keep_weights=work.keep_weights,
                keep_tokens=work.keep_tokens,
                device=device,
            )
        return hand_out(work, outcomes, attempt)


def verify(work: Work) -> None:
    """Compare the corpus with its checksums, once on each machine.

    Raises:
        CorpusError: they differ.
    """
    from mixopt.corpus.shards import Corpus
    from mixopt.corpus.verified import verify_once

    if work.verified and work.job.corpus:
        verify_once(Corpus.open(work.job.corpus), Path(work.verified))


def hand_out(work: Work, outcomes: Sequence[Outcome], attempt: int) -> list[Outcome]:
    """Give each proxy what is its own, the marker last; what was handed out before stands.

    Then the checkpoints go: from now on the markers are what counts.
    """
    folder, handed_out = Path(work.folder), []
    curve = (folder / CURVE).read_text().splitlines(keepends=True) if work.members else []
    for k, (home, outcome) in enumerate(zip(work.homes, outcomes, strict=True)):
        before = home.outcome()
        handed_out.append(before or outcome)
        if before is not None:
            continue
        if work.members:
            own = "".join(line for line in curve if json.loads(line)["proxy"] == k)
            files.write_bytes(Path(home.folder) / CURVE, own.encode())
            _move_kept(work, k, Path(home.folder))
        record = {"identity": home.identity, "outcomes": [outcome.to_json()]}
        markers.write(Path(home.folder), record)
        _append(home, {"attempt": attempt, "completed": time.time()})
    if work.members:
        (folder / CURVE).unlink()
    (folder / CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return handed_out


def _move_kept(work: Work, k: int, into: Path) -> None:
    """Move proxy `k`'s weights and token losses out of its cohort's folder."""
    if work.keep_weights:
        shape = Path(work.folder) / "model.json"
        files.write_bytes(into / shape.name, shape.read_bytes())
    for name in ("model.safetensors", TOKENS):
        path = Path(work.folder) / name
        numbered = path.with_stem(f"{path.stem}-{k}")
        if numbered.exists():
            numbered.replace(into / name)


def note_attempt(work: Work, attempt: int) -> None:
    """Write for every proxy that it is for that an attempt has begun."""
    for home in work.homes:
        if home.outcome() is None:
            _append(home, {"attempt": attempt, "started": time.time()})


def _append(home: Home, values: Mapping[str, Any]) -> None:
    path = Path(home.folder) / ATTEMPTS
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(values) + "\n")
