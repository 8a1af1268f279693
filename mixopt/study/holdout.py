"""What was predicted of a study's held-out trials before they ran, and how well it was met.

`holdout.json` in the study folder holds the predictions. The ledger keeps the file's SHA-256 from
before the first of the trials ran, so that a prediction that was changed afterwards is found out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.core.errors import StudyError
from mixopt.core.intervals import FEWEST_RANKED, rank_interval
from mixopt.core.objective import Objective
from mixopt.core.trials import Role, Trial, TrialSpec
from mixopt.io import files
from mixopt.selection.results import Predicted, number

FILE = "holdout.json"  # in a study folder
VERSION = 1


@dataclass(frozen=True)
class HeldOut:
    """A held-out trial and what was predicted of it.

    Attributes:
        spec: what is trained.
        predicted: the objective of this one run, with its 90 % interval.
    """

    spec: TrialSpec
    predicted: Predicted


@dataclass(frozen=True)
class Holdout:
    """The predictions of the held-out trials: the content of `holdout.json`.

    Attributes:
        surrogate: registry name of what predicted.
        learned: how many complete trials it had learned from.
        weights: metric → weight in the objective that was predicted (`Objective.weights`).
        scatter: seed standard deviation of a run as it was known then; None without repeats. The
            trials then share the search's seed, and the intervals are for that seed alone.
        trials: what is run, each with its prediction.
    """

    surrogate: str
    learned: int
    weights: Mapping[str, float]
    scatter: float | None
    trials: tuple[HeldOut, ...]

    @property
    def objective(self) -> Objective:
        """What was predicted; lower is better."""
        return Objective(self.weights, prefix="")

    def to_json(self) -> dict[str, Any]:
        """The predictions as JSON-able values; `from_json` gives them back exactly."""
        return {
            "version": VERSION,
            "surrogate": self.surrogate,
            "learned": self.learned,
            "objective": dict(self.weights),
            "scatter": self.scatter,
            "trials": [
                {"spec": it.spec.to_json(), "predicted": it.predicted.to_json()}
                for it in self.trials
            ],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Holdout:
        """The predictions that `to_json` described.

        Raises:
            KeyError, TypeError, ValueError: `values` are of another version or shape.
        """
        if values["version"] != VERSION:
            raise ValueError(f"version {values['version']} is not {VERSION}")
        return cls(
            surrogate=str(values["surrogate"]),
            learned=int(values["learned"]),
            weights={name: float(weight) for name, weight in values["objective"].items()},
            scatter=number(values["scatter"]),
            trials=tuple(
                HeldOut(TrialSpec.from_json(it["spec"]), Predicted.from_json(it["predicted"]))
                for it in values["trials"]
            ),
        )


def write_holdout(home: Path, holdout: Holdout) -> str:
    """Write the predictions to the study folder `home`, and return their SHA-256."""
    files.write_json(home / FILE, holdout.to_json())
    return file_digest(home)


def file_digest(home: Path) -> str:
    """SHA-256 of `holdout.json` in the study folder, as `sha256sum` prints it.

    Raises:
        StudyError: it cannot be read.
    """
    try:
        return hashlib.sha256((home / FILE).read_bytes()).hexdigest()
    except OSError as problem:
        raise _refused(home, f"cannot be read ({problem.strerror})") from problem


def read_holdout(home: Path, digest: str | None) -> Holdout:
    """The predictions in the study folder `home`.

    Args:
        home: the study folder.
        digest: SHA-256 that the ledger has of them; None if it has none yet.

    Raises:
        StudyError: the file is not there, or is not as it was before the trials ran.
    """
    found = file_digest(home)
    if digest is not None and found != digest:
        raise _refused(
            home,
            f"was changed after it was written: its SHA-256 is {found[:12]}…, and the ledger "
            f"recorded {digest[:12]}… before the held-out trials ran",
        )
    try:
        return Holdout.from_json(json.loads((home / FILE).read_bytes()))
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise _refused(home, f"holds no predictions: {problem!r}") from problem


def _refused(home: Path, what: str) -> StudyError:
    return StudyError(
        what,
        where=str(home / FILE),
        hint="Restore it from a backup: what is written after a run is no prediction of it",
    )


@dataclass(frozen=True)
class ScoredTrial:
    """A held-out trial beside its prediction.

    Attributes:
        number: of the trial.
        predicted: what was predicted of it.
        measured: its objective; None if it has none.
    """

    number: int
    predicted: Predicted
    measured: float | None

    def turned(self, sign: int) -> ScoredTrial:
        """The same with `sign` (1 or -1) times its objective: as people read it."""
        measured = None if self.measured is None else sign * self.measured
        return ScoredTrial(self.number, self.predicted.turned(sign), measured)


@dataclass(frozen=True)
class HoldoutScore:
    """How well held-out trials were predicted.

    Attributes:
        asked: how many trials were kept aside.
        trials: those that the ledger has.
        spearman: rank correlation of predicted and measured; NaN from fewer than 4 trials.
        low: lower end of its 90 % interval.
        high: its upper end.
        mae: mean absolute error, in the objective's unit; NaN without a measured trial.
        noise: mean absolute error that the scatter over seeds alone makes; None if not known.
        inside: how many measured values lie in the predicted 90 % interval.
    """

    asked: int
    trials: tuple[ScoredTrial, ...]
    spearman: float
    low: float
    high: float
    mae: float
    noise: float | None
    inside: int

    def turned(self, sign: int) -> HoldoutScore:
        """The same with `sign` (1 or -1) times its objective: as people read it."""
        return dataclasses.replace(self, trials=tuple(it.turned(sign) for it in self.trials))

    @property
    def n(self) -> int:
        """How many were measured."""
        return sum(it.measured is not None for it in self.trials)


def score_holdout(holdout: Holdout, trials: Sequence[Trial]) -> HoldoutScore:
    """The score of `holdout` by those of the study's `trials` that have ended well."""
    from scipy.stats import spearmanr

    own = [trial for trial in trials if trial.spec.role is Role.HOLDOUT]
    scored = []
    for held in holdout.trials:
        trial = next((it for it in own if it.spec == held.spec), None)
        if trial is not None:
            own.remove(trial)
            measured = holdout.objective.of_trial(trial)
            scored.append(ScoredTrial(trial.number, held.predicted, measured))
    pairs = [(it.predicted.mean, it.measured) for it in scored if it.measured is not None]
    predicted, measured_values = np.array(pairs).reshape(-1, 2).T
    varied = len(pairs) >= FEWEST_RANKED and np.ptp(predicted) > 0 and np.ptp(measured_values) > 0
    ranks = float(spearmanr(predicted, measured_values).statistic) if varied else math.nan
    low, high = rank_interval(ranks, len(pairs))
    return HoldoutScore(
        asked=len(holdout.trials),
        trials=tuple(scored),
        spearman=ranks,
        low=low,
        high=high,
        mae=float(np.abs(predicted - measured_values).mean()) if pairs else math.nan,
        noise=None if holdout.scatter is None else holdout.scatter * math.sqrt(2 / math.pi),
        inside=sum(it.measured is not None and it.predicted.contains(it.measured) for it in scored),
    )
