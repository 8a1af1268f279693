"""Mixtures as users hold them, as an array of weights.

Shapes: n mixtures, m domains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

import numpy as np
import polars as pl

from mixopt.core.errors import MixtureError
from mixopt.core.mixture import SUM_TOLERANCE, Mixture
from mixopt.offline.weight_columns import LOOSE

WEIGHT = "mixture."  # what columns of weights begin with in a frame of trials
Mixtures = Mixture | Mapping[str, float] | pl.DataFrame | Iterable[Mixture | Mapping[str, float]]


def weights_of(mixtures: Mixtures, domains: Sequence[str]) -> np.ndarray:
    """(n, m) weights in the order of `domains`.

    Args:
        mixtures: one mixture or several, each a `Mixture` or weights by domain, of which those left
            out are 0; or a frame with a row per mixture and a column `<domain>` or
            `mixture.<domain>` for every domain, whose other columns are ignored. Weights that sum
            to .98 … 1.02 are renormalised, as those of finished runs are.
        domains: m names.

    Raises:
        MixtureError: a domain is unknown, a frame lacks one, or weights are not those of a mixture;
            `where` says of which, counted from 1.

    >>> weights_of([{"web": 0.25, "code": 0.75}, {"code": 1.0}], ["code", "web"])
    array([[0.75, 0.25],
           [1.  , 0.  ]])
    """
    if isinstance(mixtures, pl.DataFrame):
        rows = _rows(mixtures, domains)
    elif isinstance(mixtures, Mixture | Mapping):
        rows = [mixtures]
    elif isinstance(mixtures, Iterable) and not isinstance(mixtures, str):
        rows = list(mixtures)
    else:
        raise _no_mixture(mixtures)
    if not rows:
        raise MixtureError("there is no mixture", hint="Give at least one")
    return np.array([_numbered(row, domains, k, len(rows)) for k, row in enumerate(rows)])


def _rows(frame: pl.DataFrame, domains: Sequence[str]) -> list[Mixture | Mapping[str, float]]:
    whole = any(name.startswith(WEIGHT) for name in frame.columns)
    columns = {domain: f"{WEIGHT}{domain}" if whole else domain for domain in domains}
    missing = [name for name in columns.values() if name not in frame.columns]
    if missing:
        raise MixtureError(
            f"the frame has no column {missing[0]!r}",
            hint=f"Give a column for each of {', '.join(columns.values())}",
        )
    return list(frame.select(pl.col(name).alias(d) for d, name in columns.items()).to_dicts())


def _numbered(
    row: Mixture | Mapping[str, float], domains: Sequence[str], k: int, n: int
) -> list[float]:
    """`_weights` of the row `k` of `n`, which errors name."""
    try:
        return _weights(row, domains)
    except MixtureError as error:
        places = [f"mixture {k + 1}"] * (n > 1) + [error.where] * bool(error.where)
        raise MixtureError(error.what, where=": ".join(places), hint=error.hint) from None


def _weights(row: Mixture | Mapping[str, float], domains: Sequence[str]) -> list[float]:
    if not isinstance(row, Mixture | Mapping):
        raise _no_mixture(row)
    given = (row if isinstance(row, Mixture) else _mixture(row)).as_dict()
    unknown = [domain for domain in given if domain not in domains]
    if unknown:
        raise MixtureError(
            f"there is no domain {unknown[0]!r}", hint=f"Choose from {', '.join(domains)}"
        )
    return [given.get(domain, 0.0) for domain in domains]


def _mixture(weights: Mapping[str, float]) -> Mixture:
    """The mixture of `weights`, renormalised where they only lack digits."""
    known = all(isinstance(weight, Real) for weight in weights.values())
    missed = abs(sum(weights.values()) - 1) if known else 0.0
    return Mixture.of(weights) if SUM_TOLERANCE < missed <= LOOSE else Mixture.exact(weights)


def _no_mixture(value: object) -> MixtureError:
    return MixtureError(
        f"a {type(value).__name__} is no mixture",
        hint='Give weights by domain, such as {"web": 0.6, "code": 0.4}, a list of such, or a '
        "polars DataFrame with a column per domain",
    )
