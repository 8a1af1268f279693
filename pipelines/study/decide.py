"""`mixopt retry` and `mixopt fail`: what becomes of trials that lost their worker too often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from mixopt.core.errors import LedgerError
from mixopt.core.trials import Failure, State, Trial
from mixopt.io import locks
from mixopt.pipelines.views.commands import command
from mixopt.study import identity
from mixopt.study.ledger import Ledger
from mixopt.study.ledger_checks import refuse_lost
from mixopt.study.settings import load_study


def retry_trials(path: Path, numbers: Sequence[int]) -> None:
    """Let trials `numbers` of the study at `path` run again.

    Raises:
        LedgerError: one of them did not lose its worker, or an active driver works on the study.
    """
    elsewhere = load_study(path).elsewhere
    with _open(path, numbers) as (ledger, trials):
        for trial in trials:
            if not trial.held:
                raise _not_lost(trial, path, elsewhere)
        for trial in trials:
            ledger.release(trial.number)
    print(f"trial {_listed(numbers)} runs again. Next: {command('run', path)}")


def fail_trials(path: Path, numbers: Sequence[int]) -> None:
    """End trials `numbers` of the study at `path` without a result.

    Raises:
        LedgerError: one of them is not open, or an active driver works on the study.
    """
    with _open(path, numbers) as (ledger, trials):
        for trial in trials:
            ledger.fail(trial.number, Failure.GIVEN_UP, trial.message or "given up by hand")
    following = command("ask" if load_study(path).elsewhere else "run", path)
    print(f"trial {_listed(numbers)} has failed and has no score. Next: {following}")


def _not_lost(trial: Trial, path: Path, elsewhere: bool) -> LedgerError:
    """Why `trial`, which has not ended, needs no retry, and what trains it."""
    if not elsewhere:
        what, hint = "is not held: it lost no worker", f"`{command('run', path)}` trains it"
    elif trial.state is State.RUNNING:
        what = "is handed out, and its result is not told yet"
        hint = f"`{command('ask', path, '--again')}` hands it out once more"
    else:
        what, hint = "waits to be handed out", f"`{command('ask', path)}` hands it out"
    return LedgerError(f"trial {trial.number} {what}", where=str(path), hint=hint)


@contextmanager
def _open(path: Path, numbers: Sequence[int]) -> Iterator[tuple[Ledger, list[Trial]]]:
    study = load_study(path)
    owner = identity.read(study.home)
    if owner is None:
        raise LedgerError(
            f"{study.name} has not begun",
            where=str(study.home),
            hint=f"Run `{command('run', path)}` first",
        )
    refuse_lost(study.ledger_url, owner)
    objective = study.mixture_objective()
    with (
        locks.hold(study.home / "driver.lock", f"study {study.name}"),
        closing(Ledger.open(study.ledger_url, study.name, objective, owner)) as ledger,
    ):
        still_open = {t.number: t for t in ledger.trials() if not t.ended}
        for number in numbers:
            if number not in still_open:
                raise LedgerError(
                    f"trial {number} is not open",
                    where=str(study.home),
                    hint=f"See which there are: {command('status', path)}",
                )
        yield ledger, [still_open[number] for number in dict.fromkeys(numbers)]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
