"""The smallest difference that a selection can see, as a sentence."""

from __future__ import annotations

import math

from mixopt.core.objective import Objective
from mixopt.pipelines.views.seed_words import scattered
from mixopt.pipelines.views.wording import unit
from mixopt.study.smallest_difference import SmallestDifference

UNKNOWN = "the noise is not known yet: search.repeats measures it"


def smallest_difference_line(seen: SmallestDifference, objective: Objective) -> str:
    """What so many seeds can see, with which power, at which level, and by which noise."""
    first, *others = seen.deviations
    found = [f"{_amount(seen, first)}{_unit(seen, objective)} in {100 * first:.0f} % of studies"]
    found += [f"{_amount(seen, power)} in {100 * power:.0f} %" for power in others]
    return (
        f"Smallest difference that {seen.seeds} seeds of {seen.candidates} mixtures can see: "
        f"{', '.join(found)} (selected at an adjusted p-value of at most {seen.level:.3g}; "
        f"{_noise(seen)})."
    )


def _amount(seen: SmallestDifference, power: float) -> str:
    if math.isinf(seen.deviations[power]):
        return "none"
    if seen.noise is None:
        return f"{seen.deviations[power]:.1f}"
    return f"{seen.differences[power]:.3g}"


def _unit(seen: SmallestDifference, objective: Objective) -> str:
    what = unit(objective) if seen.noise is not None else "seed standard deviations of a run"
    return f" {what}" if what and math.isfinite(min(seen.deviations.values())) else ""


def _noise(seen: SmallestDifference) -> str:
    if seen.noise is None:
        return UNKNOWN
    if seen.of_pairs:
        degrees = f"{seen.noise.freedom:.3g} degree{'s' * (seen.noise.freedom != 1)} of freedom"
        return (
            f"standard deviation of a run beside the others of its seed {seen.noise.std:.3g}, from "
            f"{seen.noise.runs} runs of earlier looks with {degrees}"
        )
    return f"{scattered(seen.noise)}; less where mixtures share their seeds' errors"
