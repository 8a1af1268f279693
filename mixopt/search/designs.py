"""Initial designs: the mixtures that are trained before any surrogate exists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from mixopt.core.errors import MixtureError
from mixopt.core.mixture import Mixture
from mixopt.core.polytope import FEASIBLE
from mixopt.core.registry import check_name
from mixopt.core.space import MixtureSpace
from mixopt.search.exchange import d_optimal

SMALLEST_WEIGHT = 2e-4  # RegMix (2407.01492): below it a proxy sees too few tokens to tell
# Sum of alpha, log-spaced from sparse to near the baseline. RegMix begins at .1, where a draw is
# all but one domain alone: with 512 trials that is a corner known, with 16 it is a trial lost.
STRENGTHS = (0.5, 5.0)
TEMPERATURE = 0.5  # RegMix: lifts rare domains, which the baseline would hardly vary
MOST_PRODUCTS = 30  # domains; the 820 products of 40 made a design of 120 take 13 s
CANDIDATES = 2048  # that a D-optimal design chooses from
APART = 0.02  # Hellinger distance under which two mixtures teach the same


def design(space: MixtureSpace, n: int, seed: int, kind: str = "dirichlet") -> list[Mixture]:
    """The first `n` mixtures to train, all in `space`, no two nearly equal.

    The space's reference (its baseline, or natural) and the uniform mixture come first (or the
    nearest feasible ones), then those of the design. The same arguments give the same list, and a
    longer list of the same `dirichlet` or `d-optimal` design does not begin with a shorter one:
    these are spread over all of `n`.

    Args:
        space: where mixtures may lie.
        n: how many.
        seed: of the randomness.
        kind: a key of `DESIGNS`.

    Raises:
        StudyError: there is no such design.
        MixtureError: the space is too small to hold `n` distinct mixtures.
    """
    baselines = [space.reference.array, np.full(len(space.domains), 1 / len(space.domains))]
    return _spaced(space, n, seed, kind, np.empty((0, len(space.domains))), baselines)


def extend(
    space: MixtureSpace, taken: np.ndarray, n: int, seed: int, kind: str = "dirichlet"
) -> list[Mixture]:
    """`n` further mixtures of a design, apart from those there are.

    `sobol` and `vertices` go on where the design of the same seed stopped; `d-optimal` chooses
    those that tell most beside the ones that are there.

    Args:
        space: where mixtures may lie.
        taken: (k, m) mixtures that need not be trained any more.
        n: how many.
        seed: of the randomness.
        kind: a key of `DESIGNS`.

    Raises:
        StudyError: there is no such design.
        MixtureError: the space is too small to hold `n` further distinct mixtures.
    """
    return _spaced(space, n, seed, kind, taken, [])


def _spaced(
    space: MixtureSpace,
    n: int,
    seed: int,
    kind: str,
    taken: np.ndarray,
    baselines: Sequence[np.ndarray],
) -> list[Mixture]:
    """The first `n` of baselines and candidates (m,) apart from `taken` and all before them."""
    check_name("design", kind, DESIGNS, where="design", own=False)
    first = np.array([space.project(weights) for weights in baselines]).reshape(-1, taken.shape[1])
    chosen: list[Mixture] = []
    apart = APART
    while apart > 1e-6:
        candidates = chain(first, DESIGNS[kind](space, n, seed, taken, first))
        chosen = _first_spaced(space, n, candidates, np.sqrt(taken), apart)
        if len(chosen) == n:
            return chosen
        apart /= 4  # a small space: accept mixtures that are closer together
    raise MixtureError(
        f"the space holds only {len(chosen)} distinct mixture{'s' * (len(chosen) != 1)}, {n} "
        f"{'was' if n == 1 else 'were'} asked for",
        where="space",
        hint="Widen the bounds or ask for fewer trials",
    )


def _first_spaced(
    space: MixtureSpace, n: int, candidates: Iterable[np.ndarray], roots: np.ndarray, apart: float
) -> list[Mixture]:
    """The first `n` candidates `apart` from each other and from those with square `roots`."""
    chosen: list[Mixture] = []
    for weights in candidates:
        if len(chosen) == n:
            break
        mixture = cut(space, weights)
        root = np.sqrt(mixture.array)
        if (1 - roots @ root < apart**2).sum() == 0:
            chosen.append(mixture)
            roots = np.concatenate([roots, root[None]])
    return chosen


def cut(space: MixtureSpace, weights: np.ndarray) -> Mixture:
    """The mixture `weights` (m,) with weights too small to matter set to 0, if it may do so."""
    small = np.where(weights < SMALLEST_WEIGHT, 0.0, weights)
    mixture = Mixture.from_array(space.domains, small)
    return (
        mixture if space.contains(mixture, FEASIBLE) else Mixture.from_array(space.domains, weights)
    )


def features(weights: np.ndarray, total: int = 0) -> np.ndarray:
    """(n, p) what `d-optimal` assumes a metric is linear in: a constant and √w.

    And, where there will be three mixtures a domain, the squares and products of √w. Choosing 24 /
    32 / 64 of 256 runs of the RegMix table (17 domains, 4 halves, Spearman of a Gaussian process
    at 60M): √w .914 / .922 / .950, with products .904 / .928 / .956, random .914 / .930 / .946;
    with log w instead .887 / .929 / .946.

    Args:
        weights: (n, m) mixtures.
        total: how many mixtures there will be; 0 leaves products out.
    """
    m = weights.shape[1]
    roots = np.sqrt(weights)
    columns = [np.ones((len(weights), 1)), roots]
    if total >= 3 * m and m <= MOST_PRODUCTS:
        first, second = np.triu_indices(m)
        columns.append(roots[:, first] * roots[:, second])
    return np.concatenate(columns, axis=1)


def _dirichlet(
    space: MixtureSpace, n: int, seed: int, taken: np.ndarray, first: np.ndarray
) -> Iterator[np.ndarray]:
    """Around the baseline, from sparse to dense (RegMix, 2407.01492)."""
    rng = np.random.default_rng([seed, len(taken)] if len(taken) else seed)
    for _ in range(16):  # further rounds replace draws that were too close to others
        strengths = rng.permutation(np.geomspace(*STRENGTHS, n))
        yield from space.sample_dirichlet(n, rng, strength=strengths, temperature=TEMPERATURE)


def _sobol(
    space: MixtureSpace, n: int, seed: int, taken: np.ndarray, first: np.ndarray
) -> Iterator[np.ndarray]:
    """Evenly over the simplex."""
    yield from space.sample_sobol(16 * (n + len(taken)), seed)


def _vertices(
    space: MixtureSpace, n: int, seed: int, taken: np.ndarray, first: np.ndarray
) -> Iterator[np.ndarray]:
    """Most of each domain in turn, then centroids, then Dirichlet draws.

    The simplex-centroid design (Scheffe 1963) of the space's vertices, with the axial points of
    Cornell (1975) between its first and its last kind: vertices, nearest to the baseline first; the
    centroid of all; half way from it to each vertex; half way between two vertices, in an order
    that mixes the domains.
    """
    corners = space.vertices()
    near = np.sqrt(corners) @ np.sqrt(space.reference.array)
    corners = corners[np.argsort(-near, kind="stable")]
    middle = corners.mean(axis=0)
    yield from corners
    yield middle
    yield from (corners + middle) / 2
    first, second = np.triu_indices(len(corners), k=1)
    order = np.random.default_rng(seed).permutation(len(first))
    yield from (corners[first[order]] + corners[second[order]]) / 2
    yield from _dirichlet(space, n, seed, taken, first)


def _d_optimal(
    space: MixtureSpace, n: int, seed: int, taken: np.ndarray, first: np.ndarray
) -> Iterator[np.ndarray]:
    """Those of many feasible mixtures that tell most about the effect of each domain.

    D-optimal (see `exchange.d_optimal`) for `features`, beside the mixtures that are there.
    """
    strengths = np.geomspace(STRENGTHS[0], 4 * STRENGTHS[1], CANDIDATES)
    rng = np.random.default_rng(seed)
    drawn = space.sample_dirichlet(
        CANDIDATES, rng, strength=rng.permutation(strengths), temperature=TEMPERATURE
    )
    candidates = np.concatenate([space.vertices(), drawn])
    fixed = np.concatenate([taken, first])
    total = n + len(taken)
    chosen = d_optimal(
        features(candidates, total), max(0, n - len(first)), fixed=features(fixed, total)
    )
    yield from candidates[chosen]
    yield from np.delete(candidates, chosen, axis=0)  # where some were too close to others


# (space, how many in all, seed, mixtures there are, baselines that come first) -> candidates
Design = Callable[[MixtureSpace, int, int, np.ndarray, np.ndarray], Iterator[np.ndarray]]
DESIGNS: Mapping[str, Design] = {
    "dirichlet": _dirichlet,
    "sobol": _sobol,
    "vertices": _vertices,
    "d-optimal": _d_optimal,
}
