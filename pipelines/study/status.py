"""`mixopt status`: where a study stands, read without disturbing its driver."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from rich.table import Table

from mixopt.core.formatting import count
from mixopt.core.trials import Role, State, Trial
from mixopt.io import locks
from mixopt.io.trial_files import CHECKPOINT, read_curve, training_folder
from mixopt.pipelines.views.closing import print_reliability
from mixopt.pipelines.views.console import make_console, styled
from mixopt.pipelines.views.holdout_words import holdout_lines
from mixopt.pipelines.views.multiplier_words import multiplier_line
from mixopt.pipelines.views.settings_used import round_rows
from mixopt.pipelines.views.wording import calibration, command, duration, headline
from mixopt.study import identity
from mixopt.study.ledger import Ledger
from mixopt.study.records import read_promotion, read_verdict
from mixopt.study.reliability import study_reliability
from mixopt.study.settings import load_study

SHOWN = (State.COMPLETE, State.PRUNED, State.RUNNING, State.WAITING, State.FAILED)


def show_status(path: Path) -> None:
    """Print the state of the study at `path`: its driver, trials, rounds, verdict and promotion."""
    study = load_study(path)
    console = make_console()
    owner = identity.read(study.home)
    if owner is None:
        elsewhere = study.trainer is not None and study.trainer.elsewhere
        first = command("ask" if elsewhere else "run", path)
        console.print(f"{study.name} has not begun. Next: {first}")
        return
    holder = _holder(study.home / "driver.lock")
    console.print(styled((study.name, "bold"), f" in {study.home}: {holder}"))
    ledger = Ledger.read(study.ledger_url, study.name, study.mixture_objective(), owner)
    trials, rounds = ledger.trials(), ledger.rounds()
    holdout = ledger.holdout()
    ledger.close()
    table = Table()
    for column in ("role", *SHOWN, "tokens", "device time"):
        table.add_column(column, justify="left" if column == "role" else "right")
    for role in Role:
        mine = [t for t in trials if t.spec.role is role]
        if not mine:
            continue
        states = Counter(t.state for t in mine)
        cost = [t.result.cost for t in mine if t.result is not None]
        table.add_row(
            str(role),
            *(str(states[s]) for s in SHOWN),
            count(sum(c.tokens for c in cost)),
            duration(sum(c.device_seconds for c in cost)),
        )
    console.print(table)
    for trial in trials:
        if trial.held and not trial.ended:
            console.print(f"  trial {trial.number} held: {trial.message}", markup=False)
            console.print(
                f"    {command('retry', path, trial.number)}, or mixopt fail", markup=False
            )
        elif trial.state is State.RUNNING:
            console.print(f"  trial {trial.number}: {_progress(study.home, trial)}")
        elif trial.state is State.PRUNED:
            console.print(f"  trial {trial.number} pruned: {trial.message}")
        elif trial.state is State.FAILED:
            console.print(f"  trial {trial.number} {trial.failure}: {trial.message}")
    for number, proposer, surrogate, size, weights in round_rows(list(rounds.values())):
        by = proposer if surrogate == "–" else f"{proposer} on {surrogate}"
        console.print(f"  round {number}: {by}, {size} trials, {weights}")
    for line in holdout_lines(study.home, holdout, trials):
        console.print(line, markup=False)
    objective, verdict = study.mixture_objective(), read_verdict(study.home)
    for line in (
        headline(trials, objective, verdict),
        multiplier_line(verdict),
        calibration(verdict, objective),
    ):
        if line:
            console.print(line)
    print_reliability(study_reliability(study, trials), console)
    promotion = read_promotion(study.home)
    if promotion is not None:
        model = study.home / "promotion" / promotion.model
        how = promotion.method + ("" if promotion.trained else ", upcycled, not trained,")
        console.print(f"Promoted by {how} to {model}", soft_wrap=True)


def _holder(lock: Path) -> str:
    """The holder of the study's lock, read without taking it."""
    import fcntl

    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return "no active driver"
    except BlockingIOError:
        return f"driven by {locks.holder(lock)}"
    except OSError:
        return "no active driver"


def _progress(home: Path, trial: Trial) -> str:
    curve = read_curve(home, trial)
    done = count(curve[-1].tokens) if curve else "0"
    age = ""
    folder, proxy = training_folder(home, trial.number)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        age = f", checkpoint {duration(time.time() - checkpoint.stat().st_mtime)} old"
    if proxy >= 0:
        age += f", in cohort {folder.name}"
    return f"{done} of {count(trial.spec.fidelity.tokens)} tokens evaluated{age}"
