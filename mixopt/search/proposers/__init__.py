"""Proposers: one file a method; `make` finds them by the name in the study file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixopt.search.proposers.base import Proposer

KNOWN = {
    "bayes": "mixopt.search.proposers.bayes:Bayes",
    "climb": "mixopt.search.proposers.climb:Climb",
    "d-optimal": "mixopt.search.proposers.design:DOptimal",
    "dirichlet": "mixopt.search.proposers.design:Dirichlet",
    "mixmin": "mixopt.search.proposers.mixmin:MixMin",
    "multi-fidelity": "mixopt.search.proposers.multi_fidelity:MultiFidelity",
    "multi-fidelity-mes": "mixopt.search.proposers.multi_fidelity:MaxValueEntropy",
    "optuna": "mixopt.search.proposers.optuna_sampler:TPE",
    "optuna-nsga2": "mixopt.search.proposers.optuna_sampler:NSGA2",
    "pareto": "mixopt.search.proposers.pareto:Pareto",
    "random": "mixopt.search.proposers.random:Random",
    "regmix": "mixopt.search.proposers.regmix:RegMix",
    "sobol": "mixopt.search.proposers.design:Sobol",
    "vertices": "mixopt.search.proposers.design:Vertices",
}

# Weigh the losses of single tokens, which only our proxies keep: known without an import.
NEED_TOKEN_LOSSES = frozenset({"mixmin"})


def find(name: str) -> type[Proposer]:
    """The class of the proposer called `name` in the study file.

    Raises:
        StudyError: there is none of that name.
    """
    from mixopt.core.registry import resolve
    from mixopt.search.proposers.base import Proposer

    return resolve("proposer", name, KNOWN, Proposer)  # type: ignore[type-abstract]


def make(name: str, **settings: Any) -> Proposer:
    """The `Proposer` called `name` in the study file (see `Proposer` for the settings).

    Raises:
        StudyError: there is none of that name.
    """
    return find(name)(**settings)
