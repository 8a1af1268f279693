"""Mixtures as users hold them, as an array of weights.

Shapes: n mixtures, m domains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import polars as pl

from mixopt.core.errors import MixtureError
from mixopt.core.mixture import Mixture

WEIGHT = "mixture."  # what columns of weights begin with in a frame of trials
Mixtures = Mixture | Mapping[str, float] | pl.DataFrame | Iterable[Mixture | Mapping[str, float]]


def weights_of(mixtures: Mixtures, domains: Sequence[str]) -> np.ndarray:
    """(n, m) weights in the order of `domains`.

    Args:
        mixtures: one mixture or several, each a `Mixture` or weights by domain that sum to 1; or a
            frame with a column `<domain>` or `mixture.<domain>` per domain and a row per mixture. A
            domain that is left out has weight 0.
        domains: m names.

    Raises:
        MixtureError: a domain is unknown, a frame lacks one, or weights are not those of a mixture.

    >>> weights_of([{"web": 0.25, "code": 0.75}, {"code": 1.0}], ["code", "web"])
    array([[0.75, 0.25],
           [1.  , 0.  ]])
    """
    if isinstance(mixtures, pl.DataFrame):
        rows = _rows(mixtures, domains)
    elif isinstance(mixtures, Mixture | Mapping):
        rows = [mixtures]
    else:
        rows = list(mixtures)
    if not rows:
        raise MixtureError("there is no mixture", hint="Give at least one")
    return np.array([_weights(row, domains) for row in rows])


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


def _weights(row: Mixture | Mapping[str, float], domains: Sequence[str]) -> list[float]:
    mixture = row if isinstance(row, Mixture) else Mixture.exact(row)
    given = mixture.as_dict()
    unknown = [domain for domain in given if domain not in domains]
    if unknown:
        raise MixtureError(
            f"there is no domain {unknown[0]!r}", hint=f"Choose from {', '.join(domains)}"
        )
    return [given.get(domain, 0.0) for domain in domains]
