"""A point on the simplex. Needs numpy alone; the space it may move in is `mixopt.core.space`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from mixopt.core.errors import MixtureError

BORDER = 0.5 * (5**0.5 - 1)  # between billionths that are the same; irrational: see `rounded`
SUM_TOLERANCE = 1e-6  # how far from 1 the weights of a mixture may sum before it is refused


@dataclass(frozen=True, slots=True)
class Mixture:
    """Weights over named domains, each at least 0, summing to 1.

    Build one with `of`, `natural`, `uniform` or `from_array`; the constructor trusts nothing and
    validates, but does not renormalise.

    Mixtures are equal if their domains, in order, and weights are, bit for bit. `key` and `same_as`
    pass over rounding: by them is judged whether a mixture was tried already. `same_as` and
    `distance` go by the names of the domains, as all methods of `MixtureSpace` do.

    >>> mixture = Mixture.of({"web": 3, "code": 1})
    >>> mixture["web"]
    0.75
    >>> mixture.array
    array([0.75, 0.25])
    """

    domains: tuple[str, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.domains) != len(self.weights) or not self.domains:
            raise MixtureError(f"{len(self.domains)} domains but {len(self.weights)} weights")
        if len(set(self.domains)) != len(self.domains):
            raise MixtureError(f"a domain is named twice in {list(self.domains)}")
        for name, weight in zip(self.domains, self.weights, strict=True):
            _check(name, weight)
        total = math.fsum(self.weights)
        if abs(total - 1) > SUM_TOLERANCE:
            raise MixtureError(
                f"weights sum to {total:.6g}, not 1", hint="Use Mixture.of to renormalise them"
            )

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> Mixture:
        """The mixture proportional to `weights`, which need not sum to 1.

        Raises:
            MixtureError: a weight is no number, negative or not finite, or all are 0.
        """
        for name, weight in _items(weights):
            _check(name, weight)
        total = math.fsum(weights.values())
        if not 0 < total < math.inf:
            raise MixtureError(
                f"weights sum to {total}", hint="Give at least one domain some weight"
            )
        return cls(tuple(weights), tuple(float(w) / total for w in weights.values()))

    @classmethod
    def exact(cls, weights: Mapping[str, float]) -> Mixture:
        """The mixture with exactly these weights: what `as_dict` gave, bit for bit."""
        for name, weight in _items(weights):
            _check(name, weight)
        return cls(tuple(weights), tuple(float(w) for w in weights.values()))

    @classmethod
    def natural(cls, tokens: Mapping[str, int]) -> Mixture:
        """The natural mixture: proportional to token counts."""
        return cls.of(tokens)

    @classmethod
    def uniform(cls, domains: Iterable[str]) -> Mixture:
        """The same weight on every domain."""
        return cls.of(dict.fromkeys(domains, 1.0))

    @classmethod
    def from_array(cls, domains: Iterable[str], weights: np.ndarray) -> Mixture:
        """The mixture proportional to `weights` (m,); rounding noise below 0 is cut to 0."""
        clean = np.where((weights < 0) & (weights > -SUM_TOLERANCE), 0.0, weights)
        return cls.of(dict(zip(domains, clean.tolist(), strict=True)))

    def as_dict(self) -> dict[str, float]:
        """Domain → weight, in order."""
        return dict(zip(self.domains, self.weights, strict=True))

    @property
    def array(self) -> np.ndarray:
        """The weights, (m,) float64."""
        return np.array(self.weights)

    def __getitem__(self, domain: str) -> float:
        if domain not in self.domains:
            raise MixtureError(
                f"there is no domain {domain!r}", hint=f"Choose from {', '.join(self.domains)}"
            )
        return self.weights[self.domains.index(domain)]

    def same_as(self, other: Mixture) -> bool:
        """Whether the two differ by rounding alone, as a mixture and its projection do.

        Domains are compared by name; their order does not matter.
        """
        if self.domains == other.domains:
            return self.key == other.key
        if set(self.domains) != set(other.domains):
            return False
        return self.key == rounded([other[name] for name in self.domains])

    @property
    def key(self) -> tuple[int, ...]:
        """Equal for mixtures over the same domains that differ by rounding alone: see `rounded`."""
        return rounded(self.weights)

    def distance(self, other: Mixture) -> float:
        """Hellinger distance to `other`, in [0, 1]; domains that one lacks count as weight 0."""
        mine, theirs = self.as_dict(), other.as_dict()
        names = mine.keys() | theirs.keys()
        inner = sum(math.sqrt(mine.get(n, 0.0) * theirs.get(n, 0.0)) for n in names)
        return math.sqrt(max(0.0, 1.0 - inner))


def _items(weights: Mapping[str, float]) -> Iterable[tuple[str, float]]:
    if not isinstance(weights, Mapping):
        raise MixtureError(
            f"{weights!r} is no mapping of domains to weights",
            hint='Write Mixture.of({"web": 3, "code": 1})',
        )
    return weights.items()


def _check(name: str, weight: float) -> None:
    """Refuse a weight that is no number of at least 0."""
    if not (isinstance(weight, Real) and math.isfinite(weight) and weight >= 0):
        raise MixtureError(f"weight {weight!r} is not a number of at least 0", where=str(name))


def rounded(weights: Sequence[float]) -> tuple[int, ...]:
    """A key of `weights`: equal for mixtures that differ by rounding alone.

    The one place that says which mixtures are the same, in billionths. The borders between them
    lie where no decimal number and no simple fraction does, so that a difference in the last
    binary digit never parts two mixtures.

    >>> rounded([1 / 3, 2 / 3]) == rounded([0.33333333333333337, 0.6666666666666666])
    True
    """
    return tuple(math.floor(weight * 1e9 + BORDER) for weight in weights)
