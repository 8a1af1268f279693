"""How well a surrogate predicts what it has not seen, in a table and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from mixopt.pipelines.views.page.parts import Table
from mixopt.pipelines.views.reliability import ceiling
from mixopt.surrogates.reliability import Reliability
from mixopt.surrogates.scoring import OBJECTIVE, Score

SCORES = ("rank correlation", "ceiling", "R²", "mean error", "within its 90 % interval", "trials")
SCORES_NOTE = (
    "Out of fold: no trial on the same mixture was fitted. Ceiling: the rank correlation that a "
    "perfect prediction would have with one run of each mixture. Mean error: mean absolute error, "
    "in the metric's unit. Within its 90 % interval: share of trials, 90 % if intervals are right."
)


def score_table(
    first: str, scores: Mapping[str, Score], reliable: Mapping[str, Reliability]
) -> Table:
    """A row per metric: how well it is predicted; `first` names the first column."""
    rows = [
        (metric, *score_cells(score, ceiling(reliable, metric))) for metric, score in scores.items()
    ]
    return Table((first, *SCORES), rows, SCORES_NOTE)


def score_cells(score: Score, most: str) -> tuple[str, ...]:
    """Cells under `SCORES`; `most` is the ceiling of the rank correlation."""
    return (
        _number(score.spearman, 3),
        most,
        _number(score.r2, 3),
        _number(score.mae, 4),
        "–" if math.isnan(score.coverage) else f"{score.coverage:.0%}",
        str(score.n),
    )


def _number(value: float, digits: int) -> str:
    """A score; a dash where it is not defined."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def off(scores: Mapping[str, Score], what: str = "trials") -> list[str]:
    """A warning where the intervals hold too few, or too many, of what was measured."""
    found = []
    for name, score in scores.items():
        if name != OBJECTIVE or inside_expected(score.coverage, score.n):
            continue
        narrow = score.coverage < 0.9
        found.append(
            f"The 90 % intervals of predictions of the objective hold {score.coverage:.0%} of "
            f"{score.n} {what}: they are too {'narrow' if narrow else 'wide'}, by more than chance "
            "explains. Trust the selection's measured differences, not predicted ones."
        )
    return found


def inside_expected(coverage: float, n: int) -> bool:
    """Whether so many of `n` values in 90 % intervals are what chance makes of good ones, at 5 %.

    >>> inside_expected(0.88, 17), inside_expected(0.6, 17), inside_expected(0.8, 500)
    (True, False, False)
    """
    from scipy.special import gammaln  # scipy.stats takes half a second to import

    if not n:
        return True
    inside = np.arange(n + 1)
    ways = gammaln(n + 1) - gammaln(inside + 1) - gammaln(n - inside + 1)
    chances = np.exp(ways + inside * math.log(0.9) + (n - inside) * math.log(0.1))
    # the two-sided exact test: all that is no likelier
    no_likelier = chances <= (1 + 1e-7) * chances[round(coverage * n)]
    return bool(chances[no_likelier].sum() >= 0.05)
