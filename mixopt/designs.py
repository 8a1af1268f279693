"""First swarms: the mixtures that are trained before any surrogate exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from mixopt.errors import MixtureError, StudyError
from mixopt.mixture import Mixture
from mixopt.space import MixtureSpace

SMALLEST_WEIGHT = 2e-4  # RegMix (2407.01492): below it a proxy sees too few tokens to tell
# Sum of alpha, log-spaced from sparse to near-natural. RegMix begins at .1, where a draw is all but
# one domain alone: with 512 trials that is a corner known, with 16 it is a trial lost.
STRENGTHS = (0.5, 5.0)
TEMPERATURE = 0.5  # RegMix: lifts rare domains, which the natural mixture would hardly vary
APART = 0.02  # Hellinger distance under which two mixtures teach the same


def design(space: MixtureSpace, n: int, seed: int, kind: str = "dirichlet") -> list[Mixture]:
    """The first `n` mixtures to train, all in `space`, no two nearly equal.

    The natural and the uniform mixture come first (or the nearest feasible ones), then those of
    the design. The same arguments give the same list, and a longer list of the same `dirichlet`
    design does not begin with a shorter one: strengths are spread over all of `n`.

    Args:
        space: where mixtures may lie.
        n: how many.
        seed: of the randomness.
        kind: `dirichlet` (RegMix, 2407.01492: around the natural mixture, sparse to dense) or
            `sobol` (evenly over the simplex).

    Raises:
        StudyError: there is no such design.
        MixtureError: the space is too small to hold `n` distinct mixtures.
    """
    if kind not in DESIGNS:
        raise StudyError(
            f"no design is called {kind!r}", where="design", mend=f"Choose from {sorted(DESIGNS)}"
        )
    apart = APART
    while apart > 1e-6:
        chosen = _spaced(space, n, DESIGNS[kind](space, n, seed), apart)
        if len(chosen) == n:
            return chosen
        apart /= 4  # a small space: accept mixtures that are closer together
    raise MixtureError(
        f"the space holds only {len(chosen)} distinct mixtures, {n} were asked for",
        where="design",
        mend="Widen the bounds or ask for fewer trials",
    )


def _spaced(
    space: MixtureSpace, n: int, candidates: Iterator[np.ndarray], apart: float
) -> list[Mixture]:
    """The first `n` of baselines and candidates (m,) that are `apart` from all before them."""
    baselines = [space.natural.array, np.full(len(space.domains), 1 / len(space.domains))]
    chosen: list[Mixture] = []
    roots = np.empty((0, len(space.domains)))

    def take(weights: np.ndarray) -> None:
        nonlocal roots
        mixture = cut(space, weights)
        root = np.sqrt(mixture.array)
        if len(chosen) < n and (1 - roots @ root < apart**2).sum() == 0:
            chosen.append(mixture)
            roots = np.concatenate([roots, root[None]])

    for weights in baselines:
        take(space.project(weights))
    for weights in candidates:
        if len(chosen) == n:
            break
        take(weights)
    return chosen


def cut(space: MixtureSpace, weights: np.ndarray) -> Mixture:
    """The mixture `weights` (m,) with weights too small to matter set to 0, if it may do so."""
    small = np.where(weights < SMALLEST_WEIGHT, 0.0, weights)
    mixture = Mixture.from_array(space.domains, small)
    return mixture if space.contains(mixture) else Mixture.from_array(space.domains, weights)


def _dirichlet(space: MixtureSpace, n: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    for _ in range(16):  # further rounds replace draws that were too close to others
        strengths = rng.permutation(np.geomspace(*STRENGTHS, n))
        yield from space.sample_dirichlet(n, rng, strength=strengths, temperature=TEMPERATURE)


def _sobol(space: MixtureSpace, n: int, seed: int) -> Iterator[np.ndarray]:
    yield from space.sample_sobol(16 * n, seed)


DESIGNS: Mapping[str, Callable[[MixtureSpace, int, int], Iterator[np.ndarray]]] = {
    "dirichlet": _dirichlet,
    "sobol": _sobol,
}
