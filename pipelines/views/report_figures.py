"""The report's figures, section by section: those that there is something to draw in."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mixopt.core.errors import MixoptError
from mixopt.core.mixture import Mixture
from mixopt.io import trial_files
from mixopt.pipelines.views.wording import proxy_label
from mixopt.plots import study as plots
from mixopt.study.model import study_model
from mixopt.study.queries import usual_fidelity
from mixopt.surrogates.reliability import Reliability, with_ceiling
from mixopt.surrogates.scoring import OBJECTIVE, OutOfFold

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from mixopt.study.snapshot import Snapshot


def selection_figures(snapshot: Snapshot, mixtures: Mapping[str, Mixture]) -> list[go.Figure]:
    """The mixtures side by side, and what the candidates showed."""
    found = []
    if mixtures:
        found.append(
            plots.mixture_bars(mixtures, available=snapshot.available, budget=snapshot.study.budget)
        )
    if snapshot.verdict is not None:
        found.append(plots.candidates(snapshot.verdict.candidates, snapshot.objective))
    return found


def search_figures(snapshot: Snapshot) -> list[go.Figure]:
    """Progress against both costs, learning curves, and what each domain does."""
    done = [t for t in snapshot.trials if t.complete]
    if not done:
        return []
    points = {t.number: trial_files.read_curve(snapshot.study.home, t) for t in snapshot.trials}
    return [
        plots.best_so_far(snapshot.trials, snapshot.objective, "tokens"),
        plots.best_so_far(snapshot.trials, snapshot.objective, "device_seconds"),
        plots.search_curves(snapshot.trials, points, snapshot.objective, snapshot.baselines),
        plots.objective_by_weight(done, snapshot.objective),
    ]


def promotion_figures(snapshot: Snapshot) -> list[go.Figure]:
    """Each domain before and after, and which expert reads what."""
    promotion = snapshot.promotion
    if promotion is None:
        return []
    found = []
    if any(name.startswith("bpb/") for name in promotion.metrics):
        found.append(plots.before_and_after(promotion, proxy=proxy_label(promotion)))
    if promotion.loads:
        found.append(plots.expert_loads(promotion.loads, promotion.expert_names))
    return found


def surrogate_quality(snapshot: Snapshot) -> tuple[str, OutOfFold] | None:
    """The surrogate's name, and its out-of-fold predictions of the search's trials.

    None while there are too few trials. `auto` stands for the Gaussian process until the selection
    has compared the surrogates: doing so here would take as long as the search's own fit.
    """
    fidelity = usual_fidelity(snapshot.trials)
    if fidelity is None:
        return None
    verdict = snapshot.verdict
    name = snapshot.study.search.surrogate if verdict is None else verdict.surrogate
    name = "gp" if name == "auto" else name
    with contextlib.suppress(MixoptError):
        return name, study_model(snapshot.study, fidelity, snapshot.trials).held_out(name)
    return None


def surrogate_figures(
    name: str, quality: OutOfFold, objective: Reliability | None, sign: int = 1
) -> list[go.Figure]:
    """The objective, times `sign`, as predicted out of fold, against the measured one."""
    score = quality.scores[OBJECTIVE]
    return [
        plots.predicted_against_measured(
            sign * quality.objective_observed,
            sign * quality.objective_mean,
            quality.objective_std,
            scores=(
                f"{name}, {score.n} trials: rank correlation "
                f"{with_ceiling(score.spearman, objective)}, "
                f"R² {score.r2:.2f}, {score.coverage:.0%} within the 90 % interval"
            ),
        )
    ]
