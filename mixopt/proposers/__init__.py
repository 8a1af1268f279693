"""Proposers: one file a method; `make` finds them by the name in the study file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixopt.proposers.base import Proposer

KNOWN = {
    "bayes": "mixopt.proposers.bayes:Bayes",
    "climb": "mixopt.proposers.climb:Climb",
    "d-optimal": "mixopt.proposers.design:DOptimal",
    "dirichlet": "mixopt.proposers.design:Dirichlet",
    "mixmin": "mixopt.proposers.mixmin:MixMin",
    "multi-fidelity": "mixopt.proposers.multi_fidelity:MultiFidelity",
    "multi-fidelity-mes": "mixopt.proposers.multi_fidelity:MaxValueEntropy",
    "optuna": "mixopt.proposers.optuna_sampler:TPE",
    "optuna-nsga2": "mixopt.proposers.optuna_sampler:NSGA2",
    "pareto": "mixopt.proposers.pareto:Pareto",
    "random": "mixopt.proposers.random:Random",
    "regmix": "mixopt.proposers.regmix:RegMix",
    "sobol": "mixopt.proposers.design:Sobol",
    "vertices": "mixopt.proposers.design:Vertices",
}


def find(name: str) -> type[Proposer]:
    """The class of the proposer called `name` in the study file.

    Raises:
        StudyError: there is none of that name.
    """
    from mixopt.proposers.base import Proposer
    from mixopt.registry import resolve

    return resolve("proposer", name, KNOWN, Proposer)  # type: ignore[type-abstract]


def make(name: str, **settings: Any) -> Proposer:
    """The `Proposer` called `name` in the study file (see `Proposer` for the settings).

    Raises:
        StudyError: there is none of that name.
    """
    return find(name)(**settings)
