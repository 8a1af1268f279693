"""Early warnings: a full run that begins from other weights, or gets worse while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mixopt.core.formatting import count
from mixopt.core.objective import Objective
from mixopt.core.trials import CurvePoint
from mixopt.study.results import Verdict

DEVIATIONS = 3.0  # of a run's seed: a rise beyond is no noise
OTHER_TEXT = 0.1  # share of the value by which evaluations on other text may differ
UNKNOWN = 0.01  # share of the value that stands for them where no seeds were repeated
WHAT_TO_DO = (
    "Look at train/grad_norm, train/learning_rate and router/peak_load in MLflow. Ctrl-C stops the "
    "run and keeps its last two checkpoints; a lower promote.recipe.learning_rate begins it anew"
)
START_TO_DO = (
    "If it evaluates on the same text, your trainer does not begin from `initial_model` of its job"
)
OWN_TO_DO = "Look at what your trainer reports. Ctrl-C stops the run, and the same command goes on"


def other_start(
    curve: Sequence[CurvePoint], objective: Objective, before: Mapping[str, float]
) -> str:
    """A warning where a run is worse before its first step than the model it was given; else empty.

    Args:
        curve: of the full run, oldest first.
        objective: of the study.
        before: metrics of the upcycled model; empty of a run that begins with weights of its own.
    """
    needed = objective.metrics
    if not curve or curve[0].tokens or any(name not in before for name in needed):
        return ""
    first = curve[0].comparable
    if any(name not in first for name in needed):
        return ""
    there, here = objective.value(before), objective.value(first)
    if here - there <= OTHER_TEXT * abs(there):
        return ""
    found, expected = (_text(objective.sign * value) for value in (here, there))
    return f"before its first step the objective is {found}, and of the upcycled model {expected}"


def rise(curve: Sequence[CurvePoint], objective: Objective, seed_std: float | None) -> str:
    """A warning where the last evaluation is worse than the best before it; else empty.

    Levels of a larger model after more tokens cannot be predicted from proxies of one size; that
    the objective does not get worse can.

    Args:
        curve: of the full run, oldest first.
        objective: of the study.
        seed_std: standard deviation between seeds of the mixture's proxies; None if not known.
    """
    needed = objective.metrics
    points = [point for point in curve if all(name in point.comparable for name in needed)]
    if len(points) < 2:
        return ""
    values = [objective.value(point.comparable) for point in points]
    best = min(range(len(points) - 1), key=values.__getitem__)
    allowed = DEVIATIONS * seed_std if seed_std else UNKNOWN * abs(values[best])
    worse = values[-1] - values[best]
    if worse <= allowed:
        return ""
    noise = f"{DEVIATIONS:g} standard deviations between the proxies' seeds"
    now, then = (_text(objective.sign * values[i]) for i in (-1, best))
    return (
        f"the objective is {now} after {count(points[-1].tokens)} tokens, {worse:.4f} worse than "
        f"{then} after {count(points[best].tokens)} ({allowed:.4f} would be "
        f"{noise if seed_std else 'a hundredth of it'})"
    )


def _text(value: float) -> str:
    return f"{value:.4f}".replace("-", "−")


def seed_deviation(verdict: Verdict | None) -> float | None:
    """Standard deviation between seeds of the promoted mixture's own runs; None if not known."""
    if verdict is None:
        return None
    runs = (verdict.candidate(name) for name in (verdict.promoted, verdict.baseline))
    return next((each.std for each in runs if each is not None and each.std), None)
