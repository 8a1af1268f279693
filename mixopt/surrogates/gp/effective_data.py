"""The effective-data law, with a Gaussian process on what it leaves."""

from __future__ import annotations

from typing import ClassVar

from mixopt.surrogates.gp._law_gp import Priors
from mixopt.surrogates.gp.gaussian import Gaussian


class EffectiveData(Gaussian):
    """A metric falls with the logarithm of the effective data that it gets from all domains.

    The formula, found for this project, is in `_law_gp`. From few trials nothing here predicts
    better: 24 RegMix runs rank large models about as 128 do with trees (`docs/benchmarks.md`).

    Fits the trials of one fidelity only: the one asked for, or the table's most frequent.
    """

    name: ClassVar[str] = "effective-data"
    priors: ClassVar[Priors] = Priors()
