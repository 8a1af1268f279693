"""Results that a person corrected: what was recorded first stays, the last one counts.

An Optuna trial that has ended never changes, so Optuna's own dashboard shows the first value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mixopt.core.trials import Failure, Outcome, State, Trial


def outcome_of(trial: Trial) -> Outcome:
    """What is recorded of `trial`, which has ended."""
    return Outcome(trial.result, trial.failure, trial.message, trial.state is State.PRUNED)


def with_replacements(trial: Trial, later: Sequence[Outcome]) -> Trial:
    """`trial` with the last of the outcomes that were recorded in place of its first.

    Args:
        trial: as it ended first.
        later: oldest first; empty leaves the trial as it is.
    """
    if not later:
        return trial
    last = later[-1]
    return dataclasses.replace(
        trial,
        state=State.FAILED if last.result is None else State.COMPLETE,
        result=last.result,
        failure=None if last.result is not None else last.failure or Failure.GIVEN_UP,
        message=last.message,
        replaced=(outcome_of(trial), *later[:-1]),
    )
