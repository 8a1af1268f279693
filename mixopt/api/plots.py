"""The figures of an opened study, each ready to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mixopt.core.trials import CurvePoint
from mixopt.plots import mixtures, search, selection, style, surrogate
from mixopt.plots import promotion as promoted
from mixopt.study.reliability import study_reliability
from mixopt.study.snapshot import Snapshot
from mixopt.surrogates.reliability import with_ceiling
from mixopt.surrogates.scoring import OBJECTIVE, OutOfFold

if TYPE_CHECKING:
    import plotly.graph_objects as go


class StudyPlots:
    """Figures by plotly. What is not known yet makes an empty figure, not an error.

    Args:
        snapshot: what they show.
        points: number of the trial → its evaluations, read when they are drawn.
        quality: the surrogate's name and its out-of-fold predictions, made when they are drawn.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        points: Callable[[], Mapping[int, Sequence[CurvePoint]]],
        quality: Callable[[], tuple[str, OutOfFold]],
    ) -> None:
        self._snapshot, self._points, self._quality = snapshot, points, quality

    def progress(self, against: str = "tokens") -> go.Figure:
        """Every trial of the search and the best one so far, against what they cost together.

        Args:
            against: `tokens` or `device_seconds`.
        """
        return search.best_so_far(self._snapshot.trials, self._snapshot.objective, against)

    def curves(self) -> go.Figure:
        """Learning curves of the search's trials, the best and the baselines highlighted."""
        shown = self._snapshot
        return search.search_curves(shown.trials, self._points(), shown.objective, shown.baselines)

    def weights(self) -> go.Figure:
        """The objective against each domain's weight, a panel per domain."""
        return mixtures.objective_by_weight(self._snapshot.trials, self._snapshot.objective)

    def surrogate(self) -> go.Figure:
        """Out-of-fold predictions of the search's trials against what they measured.

        Raises:
            SurrogateError: trials on fewer than four mixtures.
        """
        name, quality = self._quality()
        score = quality.scores[OBJECTIVE]
        known = study_reliability(self._snapshot.study, self._snapshot.trials)
        ranked = with_ceiling(score.spearman, known.get(OBJECTIVE))
        return surrogate.predicted_against_measured(
            quality.objective_observed,
            quality.objective_mean,
            quality.objective_std,
            unit=style.unit_of(self._snapshot.objective),
            scores=f"{name}: rank correlation {ranked}, R² {score.r2:.2f}",
        )

    def candidates(self) -> go.Figure:
        """Selection: every seed of every candidate, means with 90 % intervals, predictions."""
        verdict = self._snapshot.verdict
        return selection.candidates(verdict.candidates if verdict else (), self._snapshot.objective)

    def mixtures(self) -> go.Figure:
        """Weights of the candidates side by side; before a selection, of the baselines."""
        snapshot = self._snapshot
        candidates = snapshot.verdict.candidates if snapshot.verdict else ()
        shown = {candidate.name: candidate.mixture for candidate in candidates}
        return mixtures.mixture_bars(
            shown or snapshot.baselines, available=snapshot.available, budget=snapshot.study.budget
        )

    def promotion(self) -> go.Figure:
        """Each domain's bits per byte: dense seed, upcycled, trained, and a proxy as predicted.

        Of a trainer of your own, each of its metrics.
        """
        return promoted.before_and_after(self._snapshot.promotion)

    def experts(self) -> go.Figure:
        """The share of each domain's tokens that each expert of the promoted model receives."""
        promotion = self._snapshot.promotion
        if promotion is None:
            return promoted.expert_loads({})
        return promoted.expert_loads(promotion.loads, promotion.expert_labels)
