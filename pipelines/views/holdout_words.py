"""How well the held-out trials were predicted, in words: the same on every page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from mixopt.core.errors import StudyError
from mixopt.core.objective import Objective
from mixopt.core.trials import Trial
from mixopt.pipelines.views.wording import unit, weighed
from mixopt.study.holdout import (
    FILE,
    Holdout,
    HoldoutScore,
    ScoredTrial,
    read_holdout,
    score_holdout,
)
from mixopt.study.reliability import reliabilities
from mixopt.surrogates.scoring import OBJECTIVE

HELD_OUT = ("trial", "predicted", "90 % interval of one run", "measured", "inside")


def holdout_lines(
    home: Path,
    digest: str | None,
    trials: Sequence[Trial],
    objective: Objective,
) -> list[str]:
    """Sentences on the held-out trials; none before they are predicted.

    Args:
        home: the study folder.
        digest: SHA-256 of the predictions, as the ledger has it.
        trials: of the study.
        objective: with the weights of now, to say so where the predictions have others.
    """
    if digest is None:
        return []
    try:
        held = read_holdout(home, digest)
    except StudyError as error:
        return [f"The held-out trials are not scored: {error}"]
    score = score_holdout(held, trials)
    made = (
        f"{score.asked} held-out trials were predicted by {held.surrogate} from {held.learned} "
        f"trials before they ran ({FILE}, SHA-256 {digest[:12]}…)."
    )
    lines = [made, _scored(held, score, trials)]
    if dict(objective.weights) != dict(held.objective.weights):
        lines.append(
            "They are scored by the objective that they were predicted for, "
            f"{weighed(held.objective.weights)}: its weights were changed since."
        )
    return lines


def _scored(held: Holdout, score: HoldoutScore, trials: Sequence[Trial]) -> str:
    if not score.n:
        return "None of them has a result yet."
    parts = []
    if not math.isnan(score.spearman):
        parts.append(
            f"rank correlation {score.spearman:.2f} (n = {score.n}, 90 % interval "
            f"{score.low:.2f} to {score.high:.2f}{_ceiling(held, trials)})"
        )
    what = unit(held.objective)
    error = f"mean absolute error {score.mae:.4f}{f' {what}' if what else ''}"
    if score.noise is not None:
        error += f" (the scatter over seeds alone would make {score.noise:.4f})"
    parts.append(error)
    of = "one run with a fresh seed" if held.scatter is not None else "a run with the search's seed"
    parts.append(f"{score.inside} of {score.n} inside the 90 % interval of {of}")
    some = "" if score.n == score.asked else f" {score.n} of {score.asked} are measured;"
    return f"Held-out trials:{some} {'; '.join(parts)}.".replace("-0.", "−0.")


def _ceiling(held: Holdout, trials: Sequence[Trial]) -> str:
    """What noise lets a rank correlation over the search's mixtures reach; empty if not known."""
    known = reliabilities(trials, held.objective).get(OBJECTIVE)
    return "" if known is None else f"; ceiling over the search's mixtures {known.ceiling:.2f}"


def holdout_rows(home: Path, digest: str | None, trials: Sequence[Trial]) -> list[tuple[str, ...]]:
    """Rows under `HELD_OUT`; none where there are no predictions, or they were changed."""
    if digest is None:
        return []
    try:
        held = read_holdout(home, digest)
        score = score_holdout(held, trials).turned(held.objective.sign)
    except StudyError:
        return []
    return [_row(it) for it in score.trials]


def _row(trial: ScoredTrial) -> tuple[str, ...]:
    predicted, measured = trial.predicted, trial.measured
    return (
        str(trial.number),
        f"{predicted.mean:.4f}",
        f"{predicted.low:.4f} to {predicted.high:.4f}",
        "–" if measured is None else f"{measured:.4f}",
        "–" if measured is None else "yes" if predicted.contains(measured) else "no",
    )
