"""Names of runs: what a trial or promotion is, and what it came to."""

from __future__ import annotations

from mixopt.core.objective import Objective
from mixopt.core.trials import Role, Trial
from mixopt.study.results import Promotion

SEPARATOR = " · "
ROUNDS = (Role.SEARCH, Role.ENQUEUED)  # roles of which there are several rounds


def trial_name(trial: Trial, objective: Objective) -> str:
    """`search r1 · 3.412 · web .31`: role and round, objective or state, largest weight.

    Of a finalist the candidate and its seed stand in place of the weight.
    """
    spec = trial.spec
    role = f"{spec.role} r{spec.round}" if spec.role in ROUNDS else str(spec.role)
    if spec.candidate:
        return SEPARATOR.join((role, _outcome(trial, objective), spec.candidate, f"s{spec.seed}"))
    weights = spec.mixture.as_dict()
    largest = max(weights, key=weights.__getitem__)
    return SEPARATOR.join(
        (role, _outcome(trial, objective), f"{largest} {share(weights[largest])}")
    )


def promotion_name(promotion: Promotion, objective: Objective, first: str) -> str:
    """`promotion 2 · best observed · 3.323`: `first`, which counts them, mixture, objective."""
    parts = [first, promotion.mixture_name]
    if all(name in promotion.metrics for name in objective.metrics):
        parts.append(number_of(objective.shown.value(promotion.metrics)))
    return SEPARATOR.join(parts)


def number_of(value: float) -> str:
    """A measured value with three decimals, or four digits where these would show none.

    >>> number_of(3.41234), number_of(-0.5), number_of(0.00123456)
    ('3.412', '−0.500', '0.001235')
    """
    text = f"{value:.3f}" if 0.1 <= abs(value) < 1e4 or value == 0 else f"{value:.4g}"
    return text.replace("-", "−")


def share(weight: float) -> str:
    """A weight in short.

    >>> share(0.312), share(0.996), share(1)
    ('.31', '1.0', '1.0')
    """
    text = f"{weight:.2f}"
    return "1.0" if text == "1.00" else text.removeprefix("0")


def _outcome(trial: Trial, objective: Objective) -> str:
    value = objective.of_trial(trial)
    if value is not None:
        return number_of(objective.sign * value)
    return str(trial.failure or trial.state).replace("_", " ")
