"""A report's figures: those that there is something to draw in, each with what a mark means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mixopt.core.objective import Objective
from mixopt.core.trials import CurvePoint
from mixopt.io import trial_files
from mixopt.pipelines.views.page.parts import Figure
from mixopt.pipelines.views.wording import proxy_label
from mixopt.plots import mixtures, promotion, search, surrogate
from mixopt.plots.style import unit_of
from mixopt.study.watched import FILE as WATCHED
from mixopt.study.watched import read_watched
from mixopt.surrogates.reliability import Reliability, with_ceiling
from mixopt.surrogates.scoring import OBJECTIVE

if TYPE_CHECKING:
    from mixopt.pipelines.views.evidence import Evidence
    from mixopt.study.snapshot import Snapshot

MOST_CURVES = 120  # faint ones: more are one grey area, and reading them takes seconds
TRIALS = "the table of trials"
ROWS_OF_DOMAINS = (
    "A row per validation domain, lower is better; the diamond is another, smaller model after "
    "fewer tokens."
)
ROWS_OF_METRICS = (
    "A row per metric, each in its own unit; the diamond is what is predicted of a trial, which is "
    "another model after fewer tokens."
)


def explored_figures(snapshot: Snapshot) -> list[Figure]:
    """Where the search has been, and the objective against each domain's weight."""
    done = [t for t in snapshot.trials if t.complete]
    if not done:
        return []
    triangle = len(done[0].spec.mixture.domains) == 3
    shape = (
        "A point per trial: near a corner, the mixture is mostly of that domain"
        if triangle
        else "A line per trial: how much of each domain its mixture has"
    )
    return [
        Figure(
            mixtures.tried(done, snapshot.objective),
            f"{shape}. The brightest colour is the best objective.",
            TRIALS,
            wide=True,
        ),
        Figure(
            mixtures.objective_by_weight(done, snapshot.objective),
            "A point per trial. A slope is a hint, not a cause: more of one domain is always less "
            "of the others.",
            TRIALS,
            wide=True,
        ),
    ]


def search_figures(snapshot: Snapshot, evidence: Evidence) -> list[Figure]:
    """The best so far by its cost, beside other ways to search, and learning curves."""
    trials, objective = snapshot.trials, snapshot.objective
    if not any(t.complete for t in trials):
        return []
    caption = "A point per trial of the search; the line is the best one so far."
    if evidence.references:
        caption += (
            " Dashed: the same mixtures in random order, and as RegMix (LightGBM, the top of its "
            "predictions after a random start) would have chosen among them; median and quartiles. "
            "Both take only mixtures that this study trained, some of which its own search found, "
            "so this favours them. What they would find elsewhere is not known."
        )
    return [
        Figure(
            search.best_so_far(trials, objective, references=evidence.references),
            caption,
            TRIALS,
        ),
        Figure(
            search.search_curves(trials, _points(snapshot), objective, snapshot.baselines),
            "A line per trial of the search. All points of a line, and all lines, are measured on "
            "the same text; results in tables are measured on more, and may lie elsewhere.",
            "trials/*/curve.jsonl, and `mixopt.open_study(…).curves`",
        ),
    ]


def _points(snapshot: Snapshot) -> dict[int, Sequence[CurvePoint]]:
    """Curves of the search's trials: an even share of many, with those that are highlighted."""
    from mixopt.study.queries import best_trial, search_trials

    shown = [t for t in search_trials(snapshot.trials) if t.result is not None]
    step = max(1, -(-len(shown) // MOST_CURVES))
    best = best_trial(shown, snapshot.objective)
    kept = {t.number: t for t in shown[::step]}
    if best is not None:
        kept[best.number] = best
    for mixture in snapshot.baselines.values():
        same = [t for t in shown if t.complete and t.spec.mixture.same_as(mixture)]
        kept |= {t.number: t for t in same[:1]}
    return {n: trial_files.read_curve(snapshot.study.home, t) for n, t in kept.items()}


def promotion_figures(snapshot: Snapshot) -> list[Figure]:
    """Each domain before and after, which expert reads what, and the baseline's run beside it."""
    done = snapshot.promotion
    if done is None:
        return []
    found = []
    if done.metrics:
        found.append(
            Figure(
                promotion.before_and_after(done, proxy=proxy_label(done)),
                ROWS_OF_DOMAINS if done.upcycled else ROWS_OF_METRICS,
                "promotion/result.json",
            )
        )
    if done.loads:
        found.append(
            Figure(
                promotion.expert_loads(done.loads, done.expert_labels),
                "Share of a domain's tokens that each expert receives; a row sums to 100 %.",
                "promotion/result.json",
            )
        )
    seen = read_watched(snapshot.study.home / "promotion" / done.id)
    if seen.compared:
        found.append(
            Figure(
                promotion.difference_to_baseline(seen.compared, unit_of(snapshot.objective)),
                "A point per evaluation, at the same tokens as the baseline's. The band is where "
                "one more pair of the gate's runs would lie in 95 %: smaller models, whose "
                "differences are often larger.",
                f"promotion/{done.id}/{WATCHED}",
            )
        )
    return found


def surrogate_figures(
    evidence: Evidence, known: Mapping[str, Reliability], objective: Objective
) -> list[Figure]:
    """The objective, as people read it, as predicted out of fold, against the measured one."""
    quality = evidence.quality
    if quality is None:
        return []
    score, sign = quality.scores[OBJECTIVE], objective.sign
    labels = [f"trial {n}" for n in evidence.numbers]
    plot = surrogate.predicted_against_measured(
        sign * quality.objective_observed,
        sign * quality.objective_mean,
        quality.objective_std,
        unit=unit_of(objective),
        labels=labels if len(labels) == len(quality.objective_mean) else None,
        scores=(
            f"{evidence.surrogate}, {score.n} trials: rank correlation "
            f"{with_ceiling(score.spearman, known.get(OBJECTIVE))}, R² {score.r2:.2f}, "
            f"{score.coverage:.0%} within the 90 % interval"
        ),
    )
    return [
        Figure(
            plot,
            "A point per trial, predicted by a fit that has not seen its mixture; upright lines "
            "are 90 % intervals of one run. On the dashed line prediction and measurement agree.",
            TRIALS,
            wide=True,
        )
    ]
