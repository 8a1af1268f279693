"""Selections that are played to their end: candidates, a truth, and noise."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import Cost, Failure, Fidelity, State, Trial, TrialResult, TrialSpec
from mixopt.selection.candidates import finalists
from mixopt.selection.results import Candidate, Decision
from mixopt.selection.runs import Selection

FIDELITY = Fidelity("tiny", 1_000, 10_000)
OBJECTIVE = Objective({"web": 1})
CANDIDATES = {
    "natural": Mixture.of({"a": 1, "b": 1, "c": 2}),
    "recommended": Mixture.of({"a": 6, "b": 1, "c": 1}),
    "best observed": Mixture.of({"a": 1, "b": 6, "c": 1}),
    "uniform": Mixture.uniform("abc"),
}
CLEAR = {"natural": 1.0, "recommended": 0.95, "best observed": 0.97, "uniform": 1.1}
CAPPED = MixtureSpace(("a", "b", "c"), Mixture.of({"a": 1, "b": 3, "c": 4}), upper={"c": 0.25})
OURS = Mixture.of({"a": 5, "b": 1, "c": 4})
OLD = Mixture.of({"a": 1, "b": 5, "c": 10})  # beyond what `CAPPED` allows of c
TEAM = {"production": OURS, "last year": OLD, "natural": Mixture.of({"a": 5, "b": 4, "c": 1})}
SEEDS = (101, 102, 103, 104, 105, 106)
make = partial(Selection, CANDIDATES, FIDELITY, OBJECTIVE, SEEDS)


def ran(number: int, spec: TrialSpec, value: float | None) -> Trial:
    """`spec` as a complete trial with that value, or one that diverged without."""
    if value is None:
        return Trial(number, spec, State.FAILED, failure=Failure.DIVERGED)
    return Trial(number, spec, State.COMPLETE, TrialResult({"bpb/web": value}, (), Cost()))


def play(
    selection: Selection,
    truth: Mapping[str, float],
    noise: float = 0.001,
    shared: float = 0.1,
    seed: int = 0,
) -> list[Trial]:
    """Run a selection to its end: each value is truth + shared noise of the seed + own noise."""
    trials: list[Trial] = []
    while specs := selection.next_pulls(trials):
        for spec in specs:
            common = np.random.default_rng([seed, spec.seed]).normal()
            own = np.random.default_rng([seed, spec.seed, len(trials)]).normal()
            value = truth[spec.candidate] + shared * common + noise * own
            trials.append(ran(len(trials), spec, value))
    assert selection.done(trials)
    return trials


def shown(decision: Decision, name: str) -> Candidate:
    candidate = decision.candidate(name)
    assert candidate is not None
    return candidate


def of_a_team(**settings: Any) -> Selection:
    """A selection against a production mixture outside the space, with two further baselines."""
    candidates = finalists(CANDIDATES["recommended"], CANDIDATES["best observed"], CAPPED, TEAM)
    return Selection(
        candidates,
        FIDELITY,
        OBJECTIVE,
        SEEDS,
        baseline="production",
        barred=["last year"],
        **settings,
    )
