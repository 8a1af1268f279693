"""Gaussian processes on the square roots of the weights."""

from __future__ import annotations

from typing import ClassVar

from mixopt.surrogates.gp._law_gp import Priors
from mixopt.surrogates.gp.gaussian import Gaussian


class GaussianProcess(Gaussian):
    """Matérn-5/2 on √w, where distance is Hellinger's; a length scale per metric and domain.

    What `effective-data` is without its law. Metrics share the prior of each domain's length scale,
    and are fitted together. How well it ranks, and how fast, is in `docs/benchmarks.md`.

    Fits the trials of one fidelity only: the one asked for, or the table's most frequent.
    """

    name: ClassVar[str] = "gp"
    # On RegMix's 1M runs with noise of .3 deviations, error of 24 / 64 runs: .376 / .284 deviations
    # with the noise fitted, .333 / .228 with that of two repeats (13 metrics), .322 / .221 with the
    # true one; one metric alone .339 / .265, .320 / .233. With noise of .1: .259 / .160 and
    # .255 / .162. `effective-data` shares its noise among metrics already: .149 / .165 / .160 at
    # .1, 24 runs.
    uses_known_noise: ClassVar[bool] = True
    winsorized: ClassVar[bool] = True
    # γ held at ½, and the law's effect at nothing
    priors: ClassVar[Priors] = Priors(
        gamma=(0.0, 1e-3), log_effect=(-12.0, 1e-2), log_variance=(0.0, 1.0)
    )
