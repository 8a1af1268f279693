"""The smallest difference that a study's selection can see, before its runs are spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixopt.core.objective import Objective
from mixopt.core.trials import Fidelity, Trial
from mixopt.selection.power import smallest_differences
from mixopt.selection.runs import Selection, phase_pulls
from mixopt.study.sections import Select
from mixopt.surrogates.noise import SeedScatter, pair_scatter_of, seed_scatter_of

ROUNDING = 1e-12  # scatter that tells nothing: seeds do the same to all mixtures, or nothing


@dataclass(frozen=True)
class SmallestDifference:
    """What a selection can see.

    Attributes:
        candidates: mixtures that are compared, the baseline among them.
        seeds: of each that is compared to the end.
        level: the largest adjusted p-value that is promoted.
        deviations: power → difference, in standard deviations of a run.
        noise: that deviation, in the objective's unit; None where it is not known.
        of_pairs: whether `noise` is what an earlier selection's runs scatter by beside the others
            of their seed; else it is that of a run over seeds, which is no less.
    """

    candidates: int
    seeds: int
    level: float
    deviations: Mapping[float, float]
    noise: SeedScatter | None
    of_pairs: bool

    @property
    def differences(self) -> dict[float, float]:
        """Power → difference in the objective's unit; empty where the noise is not known."""
        if self.noise is None:
            return {}
        return {power: times * self.noise.std for power, times in self.deviations.items()}


def of_selection(selection: Selection, trials: Sequence[Trial]) -> SmallestDifference:
    """What `selection` can see, by the noise that the study's `trials` show.

    It has two candidates or more, and a look left.
    """
    return _seen(
        *(len(selection.candidates), selection.schedule, selection.level),
        rejects=selection.rule == "successive-rejects",
        noise=_noise(trials, selection.objective, selection.fidelity),
    )


def of_plan(
    asked: Select,
    candidates: int,
    trials: Sequence[Trial],
    objective: Objective,
    fidelity: Fidelity,
) -> SmallestDifference:
    """The same of a selection that is `asked` for, with so many `candidates`, at its first look."""
    return _seen(
        *(candidates, phase_pulls(candidates, *asked.runs(candidates))),
        level=(1 - asked.confidence) / asked.looks,
        rejects=asked.rule == "successive-rejects",
        noise=_noise(trials, objective, fidelity),
    )


def _seen(
    candidates: int,
    pulls: Sequence[int],
    level: float,
    rejects: bool,
    noise: tuple[SeedScatter | None, bool],
) -> SmallestDifference:
    deviations = smallest_differences(candidates, pulls, level, rejects=rejects)
    return SmallestDifference(candidates, pulls[-1], level, deviations, *noise)


def _noise(
    trials: Sequence[Trial], objective: Objective, fidelity: Fidelity
) -> tuple[SeedScatter | None, bool]:
    """The scatter of a run, and whether what seeds do to all mixtures is taken off it."""
    pairs = pair_scatter_of(trials, objective, fidelity)
    if pairs is not None and pairs.std > ROUNDING:
        return pairs, True
    return seed_scatter_of(trials, objective, fidelity), False
