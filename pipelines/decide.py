"""`mixopt retry` and `mixopt fail`: what becomes of a trial that lost its worker too often."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mixopt import locks
from mixopt.errors import LedgerError
from mixopt.ledger import Ledger
from mixopt.study import load_study
from mixopt.trials import Failure, Trial


def retry_trial(path: Path, number: int) -> None:
    """Let trial `number` of the study at `path`, run again.

    Raises:
        LedgerError: there is no such open trial, or somebody works on the study.
    """
    with _open(path, number) as (ledger, trial):
        ledger.release(trial.number)
    print(f"trial {number} runs again. Next: mixopt run {path}")


def fail_trial(path: Path, number: int) -> None:
    """End trial `number` of the study at `path` without a result.

    Raises:
        LedgerError: there is no such open trial, or somebody works on the study.
    """
    with _open(path, number) as (ledger, trial):
        message = trial.message or "given up by hand"
        ledger.fail(trial.number, Failure.WORKER_LOST, message)
    print(f"trial {number} has failed; it counts as no score. Next: mixopt run {path}")


@contextmanager
def _open(path: Path, number: int) -> Iterator[tuple[Ledger, Trial]]:
    study = load_study(path)
    with (
        locks.hold(study.home / "driver.lock", f"study {study.name}"),
        closing(Ledger.open(study.ledger_url, study.name, study.mixture_objective())) as ledger,
    ):
        found = next((t for t in ledger.trials() if t.number == number), None)
        if found is None:
            raise LedgerError(
                f"there is no trial {number}",
                where=str(study.home),
                mend=f"See which there are: mixopt status {path}",
            )
        yield ledger, found
