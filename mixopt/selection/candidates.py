"""Which mixtures a selection compares, all checked against the space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import Trial

NATURAL = "natural"  # the baseline of a study that names no other
UNIFORM = "uniform"
PROPOSED = ("recommended", "best observed")  # by the search
SAME = 0.02  # Hellinger distance under which two candidates are one


def projected(name: str) -> str:
    """What the projection of the mixture `name` onto the space is called."""
    return f"projected {name}"


def best_observed(trials: Sequence[Trial], objective: Objective) -> Mixture | None:
    """The mixture with the least mean objective over its complete trials; None without any."""
    values: dict[tuple[int, ...], list[float]] = {}
    mixtures: dict[tuple[int, ...], Mixture] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        if (value := objective.of_trial(trial)) is not None:
            key = trial.spec.mixture.key
            mixtures.setdefault(key, trial.spec.mixture)
            values.setdefault(key, []).append(value)
    best = min(values, key=lambda key: float(np.mean(values[key])), default=None)
    return None if best is None else mixtures[best]


def finalists(
    recommended: Mixture,
    observed: Mixture | None,
    space: MixtureSpace,
    baselines: Mapping[str, Mixture] | None = None,
    diverged: Sequence[Mixture] = (),
) -> dict[str, Mixture]:
    """The candidates: the baselines, recommended, best observed and uniform, in this order.

    All but the baselines lie in `space`. Where the first baseline does not, the others are still
    compared with it, and its projection is a candidate too: it is promoted if none beats the
    baseline. Further baselines outside are compared, and never promoted. Of two candidates closer
    than `SAME` the first stays.

    Args:
        recommended: of the search; in the space.
        observed: best mixture of the search; left out where it is outside the space.
        space: where what is promoted lies.
        baselines: by name, the one to beat first, over the domains of `space` in their order;
            natural if not given.
        diverged: mixtures on which a training diverged: neither they nor what is closer than `SAME`
            to one becomes a candidate; baselines are compared all the same.
    """
    given = dict(baselines or {NATURAL: space.natural})
    first = next(iter(given))
    outside = {name for name, mixture in given.items() if not space.contains(mixture)}
    kept = {first: given[first]}
    rivals: dict[str, Mixture] = {}
    if first in outside:
        rivals[projected(first)] = space.mixture(given[first].array)
    rivals |= {name: mixture for name, mixture in given.items() if name != first}
    rivals["recommended"] = recommended
    if observed is not None and space.contains(observed):
        rivals["best observed"] = observed
    uniform = Mixture.uniform(space.domains)
    if space.contains(uniform):
        rivals.setdefault(UNIFORM, uniform)
    else:
        rivals.setdefault(projected(UNIFORM), space.mixture(uniform.array))
    for name, mixture in rivals.items():
        # a mixture outside is never promoted: it does not stand for one that may be
        others = [m for n, m in kept.items() if n not in outside or name in outside]
        avoided = [] if name in given or name == projected(first) else list(diverged)
        if all(mixture.distance(other) >= SAME for other in [*others, *avoided]):
            kept[name] = mixture
    return kept
