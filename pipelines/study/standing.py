"""Where a study stands, read once for `mixopt status` in all its forms; nothing is disturbed."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from mixopt.core.objective import Objective
from mixopt.core.trials import Cost, Role, State, Trial
from mixopt.io import locks
from mixopt.io.trial_files import CHECKPOINT, read_curve, training_folder
from mixopt.pipelines.study.open_full_run import FullRun, open_full_run
from mixopt.pipelines.views.commands import command
from mixopt.study import identity
from mixopt.study.ledger import Ledger
from mixopt.study.progress import Progress, read_progress
from mixopt.study.queries import best_trial
from mixopt.study.records import read_promotion, read_verdict
from mixopt.study.results import Promotion, Verdict
from mixopt.study.rounds import Round
from mixopt.study.settings import Study, load_study
from mixopt.study.stopped import Stop, read_stop
from mixopt.surrogates.noise import SeedScatter, seed_scatter_of

# what a trial really does, beside the ledger's states: RUNNING there says that it was begun
INTERRUPTED, HELD, HANDED_OUT = "interrupted", "held", "handed out"
SHOWN = (
    *(str(State.COMPLETE), str(State.PRUNED), str(State.RUNNING), HANDED_OUT, str(State.WAITING)),
    *(INTERRUPTED, HELD, str(State.FAILED)),
)


@dataclass(frozen=True)
class Best:
    """The best observed mixture so far.

    Attributes:
        trial: its number.
        value: of the objective, as people read it, measured with one seed.
        interval: the central 90 % for the mean over seeds of that mixture, from this run and the
            seed standard deviation; None where no mixture was run with several seeds. That it was
            chosen for being best is not allowed for.
        scatter: over seeds.
    """

    trial: int
    value: float
    interval: tuple[float, float] | None
    scatter: SeedScatter | None


@dataclass(frozen=True)
class Standing:
    """A study as it stands.

    Attributes:
        file: the study file, as it was named.
        study: its settings.
        begun: whether it has been run at all.
        driver: who works on it; None if nobody does.
        progress: of the active driver; None without one.
        stop: the error that it stopped with, if no driver went on since.
        trials: of the ledger, by number.
        states: number of a trial → what it really does, one of `SHOWN`.
        rounds: of proposals.
        verdict: of the selection.
        promotion: the last one that ended.
        full_run: a promotion that has begun and not ended.
        holdout: SHA-256 of what was predicted of held-out trials.
        overruled: basis of a check at a larger size → why a person goes on.
    """

    file: Path
    study: Study
    begun: bool
    driver: str | None = None
    progress: Progress | None = None
    stop: Stop | None = None
    trials: Sequence[Trial] = ()
    states: Mapping[int, str] = dataclasses.field(default_factory=dict)
    rounds: Sequence[Round] = ()
    verdict: Verdict | None = None
    promotion: Promotion | None = None
    full_run: FullRun | None = None
    holdout: str | None = None
    overruled: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def objective(self) -> Objective:
        """With the weights that the study file names now."""
        return self.study.mixture_objective()

    @property
    def spent(self) -> Cost:
        """By all trials that ended, of the search and the selection."""
        total = Cost()
        for trial in self.trials:
            total = total if trial.result is None else total.plus(trial.result.cost)
        return total

    @property
    def done(self) -> bool:
        """Whether everything that the study file asks for has ended."""
        promoted = self.study.promote is None or self.promotion is not None
        if not self.searched:
            return False
        open_trials = any(not trial.ended for trial in self.trials)
        return self.verdict is not None and promoted and not open_trials and not self.full_run

    @property
    def searched(self) -> bool:
        """Whether all rounds that the study file asks for were proposed."""
        return len(self.rounds) >= self.study.search.rounds

    @property
    def stage(self) -> str:
        """What is being done, or what comes next."""
        if self.driver is not None and self.progress is not None:
            return self.progress.stage
        if not self.begun:
            return "not begun"
        if self.done:
            return "done"
        for role in Role:
            if any(t.spec.role is role and not t.ended for t in self.trials):
                return STAGES[role]
        if self.full_run is not None or (self.searched and self.verdict and self.study.promote):
            return "promotion"
        return "selection" if self.searched else "search"

    @property
    def next_command(self) -> str:
        """The command that goes on; empty where there is nothing to do."""
        if self.driver is not None or self.done:
            return ""
        promote = self.study.promote
        asks = self.verdict is not None and promote is not None and promote.elsewhere
        return command("ask" if self.study.elsewhere or asks else "run", self.file)

    def counted(self, role: Role | None = None) -> dict[str, int]:
        """State → how many trials (of `role`) are in it; zeros too."""
        mine = [t for t in self.trials if role is None or t.spec.role is role]
        counted = Counter(self.states[trial.number] for trial in mine)
        return {state: counted[state] for state in SHOWN}

    def best(self) -> Best | None:
        """The search's best trial so far; None before one is complete."""
        trial = best_trial(self.trials, self.objective)
        if trial is None:
            return None
        value = self.objective.shown.value(trial.metrics)
        scatter = seed_scatter_of(self.trials, self.objective, trial.spec.fidelity)
        if scatter is None:
            return Best(trial.number, value, None, None)
        half = float(stdtrit(scatter.freedom, 0.95)) * scatter.std
        return Best(trial.number, value, (value - half, value + half), scatter)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-able values."""
        best, progress, verdict = self.best() if self.begun else None, self.progress, self.verdict
        spent = dataclasses.asdict(self.spent)
        if progress is not None:
            spent |= {"command_flops": progress.flops, "planned_flops": progress.planned}
        return {
            "study": self.study.name,
            "folder": str(self.study.home),
            "begun": self.begun,
            "done": self.begun and self.done,
            "driver": self.driver,
            "stage": self.stage,
            "stage_trainings": None if progress is None else [progress.done, progress.of],
            "seconds_left": None if progress is None else progress.seconds_left,
            "seconds_left_without": [] if progress is None else list(progress.untimed),
            "stopped": None if self.stop is None else dataclasses.asdict(self.stop),
            "trials": self.counted(),
            "trials_by_role": {
                str(role): self.counted(role)
                for role in Role
                if any(t.spec.role is role for t in self.trials)
            },
            "open": [
                {"trial": t.number, "state": self.states[t.number], "message": t.message}
                for t in self.trials
                if not t.ended
            ],
            "failures": [
                {"trial": t.number, "failure": str(t.failure), "message": t.message}
                for t in self.trials
                if t.state is State.FAILED
            ],
            "best": None
            if best is None
            else {"trial": best.trial, "objective": best.value, "interval_90": best.interval},
            "verdict": None if verdict is None else verdict_values(verdict),
            "promotion": None
            if self.promotion is None
            else {"id": self.promotion.id, "mixture": self.promotion.mixture_name},
            "full_run": None if self.full_run is None else dataclasses.asdict(self.full_run),
            "spent": spent,
            "next": self.next_command,
        }


def verdict_values(verdict: Verdict) -> dict[str, Any]:
    """A verdict in few JSON-able values."""
    return {
        "selected": verdict.promoted,
        "improved": verdict.improved,
        "reason": verdict.reason,
        "mixture": verdict.mixture.as_dict(),
    }


STAGES = {
    Role.DESIGN: "initial design",
    Role.SEARCH: "rounds of proposals",
    Role.REPEAT: "initial design",
    Role.ENQUEUED: "enqueued mixtures",
    Role.HOLDOUT: "held-out trials",
    Role.SELECT: "selection",
    Role.TRANSFER: "larger size",
}


def read_standing(file: Path) -> Standing:
    """Where the study of `file` stands.

    Raises:
        StudyError: the file is not valid.
        LedgerError: its ledger cannot be reached, or is another folder's.
    """
    study = load_study(file)
    owner = identity.read(study.home)
    if owner is None:
        return Standing(file, study, begun=False)
    driver = locks.held_by(study.home / "driver.lock")
    ledger = Ledger.read(study.ledger_url, study.name, study.mixture_objective(), owner)
    try:
        trials, rounds = ledger.trials(), list(ledger.rounds().values())
        holdout, overruled = ledger.holdout(), ledger.overruled()
    finally:
        ledger.close()
    progress = read_progress(study.home)
    return Standing(
        file,
        study,
        begun=True,
        driver=driver,
        progress=progress if driver is not None and _is_of(progress, driver) else None,
        stop=read_stop(study.home) if driver is None else None,
        trials=trials,
        states={trial.number: really(study, trial, driver is not None) for trial in trials},
        rounds=rounds,
        verdict=read_verdict(study.home),
        promotion=read_promotion(study.home),
        full_run=open_full_run(study.home),
        holdout=holdout,
        overruled=overruled,
    )


def really(study: Study, trial: Trial, driven: bool) -> str:
    """What `trial` does, one of `SHOWN`.

    Args:
        study: whose trial.
        trial: as the ledger has it.
        driven: whether a driver works on the study.
    """
    if trial.held and not trial.ended:
        return HELD
    if trial.state is not State.RUNNING:
        return str(trial.state)
    if study.elsewhere:
        return HANDED_OUT
    if not driven:
        return INTERRUPTED
    folder, _ = training_folder(study.home, trial.number)
    # begun by an earlier driver, and not handed to a worker again yet
    return str(State.RUNNING if locks.held_by(folder / "lock") else State.WAITING)


def tokens_and_age(home: Path, trial: Trial) -> tuple[int, float | None, str]:
    """Tokens of the last evaluation, seconds since the checkpoint, and the cohort's name."""
    curve = read_curve(home, trial)
    folder, proxy = training_folder(home, trial.number)
    checkpoint = folder / CHECKPOINT
    age = time.time() - checkpoint.stat().st_mtime if checkpoint.exists() else None
    return curve[-1].tokens if curve else 0, age, folder.name if proxy >= 0 else ""


def _is_of(progress: Progress | None, driver: str) -> bool:
    """Whether the driver that holds the study wrote `progress`."""
    return progress is not None and driver.startswith(f"process {progress.pid} ")
