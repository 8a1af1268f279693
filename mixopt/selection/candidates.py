"""Which mixtures a selection compares, all checked against the space."""

from __future__ import annotations

from mixopt.core.mixture import Mixture
from mixopt.core.space import MixtureSpace

NATURAL = "natural"  # the baseline: the candidate that every other must beat
PROJECTED = "projected natural"  # promoted in natural's stead where the study forbids natural
SAME = 0.02  # Hellinger distance under which two candidates are one
REFERENCES = (NATURAL, PROJECTED, "uniform", "projected uniform")  # not proposed by the search


def finalists(
    recommended: Mixture, observed: Mixture | None, space: MixtureSpace
) -> dict[str, Mixture]:
    """The candidates: natural, recommended, best observed and uniform, in this order.

    All but natural lie in `space`. Where natural does not, it is still the baseline, and its
    projection is a candidate too: it is promoted if no other beats natural. Of two candidates
    closer than `SAME` the first stays.

    Args:
        recommended: of the search; in the space.
        observed: best mixture of the search; left out where it is outside the space.
        space: with the natural mixture.
    """
    natural = space.natural
    kept = {NATURAL: natural}
    rivals: dict[str, Mixture] = {"recommended": recommended}
    if not space.contains(natural):
        kept[PROJECTED] = space.mixture(natural.array)
    if observed is not None and space.contains(observed):
        rivals["best observed"] = observed
    uniform = Mixture.uniform(natural.domains)
    if space.contains(uniform):
        rivals["uniform"] = uniform
    else:
        rivals["projected uniform"] = space.mixture(uniform.array)
    for name, mixture in rivals.items():
        others = (m for n, m in kept.items() if n != NATURAL or PROJECTED not in kept)
        if all(mixture.distance(other) >= SAME for other in others):
            kept[name] = mixture
    return kept
