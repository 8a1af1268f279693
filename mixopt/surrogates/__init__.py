"""Surrogates: one file a method; `make` finds them by the name in the study file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixopt.surrogates.base import Surrogate

KNOWN = {
    "auto": "mixopt.surrogates.auto:Auto",
    "bimix": "mixopt.surrogates.bimix:BiMix",
    "cokriging": "mixopt.surrogates.cokriging:Cokriging",
    "effective-data": "mixopt.surrogates.effective_data:EffectiveData",
    "gp": "mixopt.surrogates.gp:GaussianProcess",
    "lightgbm": "mixopt.surrogates.lightgbm:LightGBM",
    "linear": "mixopt.surrogates.linear:Linear",
    "mixing-law": "mixopt.surrogates.mixing_law:MixingLaw",
    "mlp": "mixopt.surrogates.mlp:MLP",
    "multi-fidelity-gp": "mixopt.surrogates.multi_fidelity_gp:MultiFidelityGP",
    "multitask-gp": "mixopt.surrogates.multitask_gp:MultitaskGP",
    "nested-laws": "mixopt.surrogates.nested_laws:NestedLaws",
    "quadratic": "mixopt.surrogates.quadratic:Quadratic",
    "stack": "mixopt.surrogates.stack:Stack",
}


def find(name: str) -> type[Surrogate]:
    """The class of the surrogate called `name` in the study file.

    Raises:
        StudyError: there is none of that name.
    """
    from mixopt.registry import resolve
    from mixopt.surrogates.base import Surrogate

    return resolve("surrogate", name, KNOWN, Surrogate)  # type: ignore[type-abstract]


def make(name: str, **settings: Any) -> Surrogate:
    """A fresh `Surrogate` called `name` in the study file (see `Surrogate` for the settings).

    Raises:
        StudyError: there is none of that name.
    """
    return find(name)(**settings)
