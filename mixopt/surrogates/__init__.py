"""Surrogates: one file a method; `make` finds them by the name in the study file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixopt.surrogates.base import Surrogate

KNOWN = {
    "auto": "mixopt.surrogates.auto:Auto",
    "bimix": "mixopt.surrogates.regression.bimix:BiMix",
    "cokriging": "mixopt.surrogates.fidelity.cokriging:Cokriging",
    "effective-data": "mixopt.surrogates.gp.effective_data:EffectiveData",
    "gp": "mixopt.surrogates.gp.gp:GaussianProcess",
    "lightgbm": "mixopt.surrogates.regression.lightgbm:LightGBM",
    "linear": "mixopt.surrogates.regression.linear:Linear",
    "mixing-law": "mixopt.surrogates.regression.mixing_law:MixingLaw",
    "mlp": "mixopt.surrogates.regression.mlp:MLP",
    "multi-fidelity-gp": "mixopt.surrogates.fidelity.multi_fidelity_gp:MultiFidelityGP",
    "multitask-gp": "mixopt.surrogates.fidelity.multitask_gp:MultitaskGP",
    "nested-laws": "mixopt.surrogates.fidelity.nested_laws:NestedLaws",
    "quadratic": "mixopt.surrogates.regression.quadratic:Quadratic",
    "stack": "mixopt.surrogates.regression.stack:Stack",
}


def find(name: str) -> type[Surrogate]:
    """The class of the surrogate called `name` in the study file.

    Raises:
        StudyError: there is none of that name.
    """
    from mixopt.core.registry import resolve
    from mixopt.surrogates.base import Surrogate

    return resolve("surrogate", name, KNOWN, Surrogate)  # type: ignore[type-abstract]


def make(name: str, **settings: Any) -> Surrogate:
    """A fresh `Surrogate` called `name` in the study file (see `Surrogate` for the settings).

    Raises:
        StudyError: there is none of that name.
    """
    return find(name)(**settings)
