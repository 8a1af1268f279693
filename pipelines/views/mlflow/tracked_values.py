"""Trials, verdicts and promotions as what MLflow shows of them. Pure, but for files' times.

A metric is (name, value, step, milliseconds since 1970). All four are functions of what is shown,
never of when it is shown: MLflow then recognises what it has already.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixopt.core.formatting import count
from mixopt.core.objective import Objective
from mixopt.core.trials import State, Trial
from mixopt.io import trial_files
from mixopt.pipelines.views.mlflow.mlflow_store import curve_metrics
from mixopt.pipelines.views.verbatim import verbatim, verbatim_block
from mixopt.selection.results import Candidate
from mixopt.selection.transfer import Transfer
from mixopt.study.holdout import HoldoutScore
from mixopt.study.queries import search_progress
from mixopt.study.results import Promotion, Verdict
from mixopt.surrogates.reliability import Reliability
from mixopt.surrogates.scoring import OBJECTIVE

Metric = tuple[str, float, int, int]


def weights(mixture: Mapping[str, float]) -> dict[str, str]:
    """A mixture as parameters."""
    return {f"mixture.{domain}": f"{weight:.6f}" for domain, weight in mixture.items()}


def trial_metrics(trial: Trial, home: Path, objective: Objective, start: int) -> Iterator[Metric]:
    """Learning curve, final metrics, cost and routing of `trial`, whose run began at `start`.

    A curve's metrics are `curve/<metric>`, all on the same text; the final ones, which may be on
    more, are `<metric>`.
    Per validation domain, `router/peak_load` is the largest share that an expert has of the
    assignments, by an even share: 1 is balanced, the number of experts is all on one.
    """
    curve = trial_files.read_curve(home, trial)
    yield from curve_metrics(curve, start)
    if trial.result is None or not curve:
        return
    cost, last = trial.result.cost, curve[-1].tokens
    end = start + round(curve[-1].seconds * 1000)
    for name, final in trial.metrics.items() if trial.complete else ():
        yield name, final, last, end
    yield "cost/device_seconds", cost.device_seconds, last, end
    yield "cost/tokens", cost.tokens, last, end
    yield "cost/flops", cost.flops, last, end
    for domain, load in trial.result.loads.items():
        yield f"router/peak_load/{domain}", max(load) * len(load), last, end
    for domain, entropy in trial.result.entropies.items():
        yield f"router/entropy/{domain}", entropy, last, end
    for domain, share in trial.result.dropped.items():
        yield f"router/dropped/{domain}", share, last, end
    value = objective.of_trial(trial)
    if value is not None:
        yield "objective", objective.sign * value, last, end


def trial_params(trial: Trial) -> dict[str, Any]:
    """What was asked for, as parameters: they never change."""
    spec, fidelity = trial.spec, trial.spec.fidelity
    return {
        **weights(spec.mixture.as_dict()),
        "model": fidelity.model,
        **({"active_params": fidelity.params} if fidelity.params_known else {}),
        "tokens": fidelity.tokens,
        "seed": spec.seed,
        "round": spec.round,
        "role": spec.role,
        **({"candidate": spec.candidate} if spec.candidate else {}),
    }


def trial_tags(trial: Trial) -> dict[str, str]:
    """Where `trial` stands, and what to filter runs by."""
    spec, fidelity = trial.spec, trial.spec.fidelity
    tags = {
        "mixopt.state": str(trial.state),
        "mixopt.role": str(spec.role),
        "mixopt.round": str(spec.round),
        "mixopt.fidelity": f"{fidelity.model}, {count(fidelity.tokens)} tokens",
        "mixopt.attempts": str(trial.attempts),
    }
    if trial.result is not None:
        tags |= {f"mixopt.with.{k}": v for k, v in trial.result.environment.items()}
    if trial.failure is not None:
        tags["mixopt.failure"] = str(trial.failure)
        tags["mlflow.note.content"] = f"**{trial.failure}**\n\n{verbatim_block(trial.message)}"
    elif trial.state is State.PRUNED:
        tags["mlflow.note.content"] = f"**pruned**: {verbatim(trial.message)}"
    return tags


def verdict_metrics(verdict: Verdict, stamp: int) -> Iterator[Metric]:
    """The candidates' statistics and the promoted mixture of a verdict, as people read it.

    `difference_low` and `difference_high` are the 90 % interval of the mean difference to the
    baseline, `adjusted_p` its one-sided p-value adjusted for the number of candidates.
    `predicted_low` and `predicted_high` are the 90 % interval of the predicted mean over the
    candidate's fresh seeds; `inside` is 1 where the measured mean lies between them.
    `multiplier` is how many times the tokens the baseline would need for the same, with its 90 %
    interval.
    """
    found: dict[str, float | None] = {}
    for candidate in verdict.candidates:
        for key, value in _candidate_metrics(candidate).items():
            found[f"selection/{candidate.name}/{key}"] = value
        for it in candidate.guarded:
            found[f"selection/{candidate.name}/guardrail/{it.metric}"] = it.worse
    for name, times in verdict.multipliers.items():
        found[f"selection/{name}/multiplier"] = times.value
        found[f"selection/{name}/multiplier_low"] = times.low
        found[f"selection/{name}/multiplier_high"] = times.high
    if verdict.seed_scatter is not None:
        found["selection/seed_scatter/std"] = verdict.seed_scatter.std
        found["selection/seed_scatter/freedom"] = verdict.seed_scatter.freedom
    found |= {f"mixture/{d}": w for d, w in verdict.mixture.as_dict().items()}
    found["selection/confidence"] = verdict.confidence
    for name, value in found.items():
        if value is not None:
            yield name, float(value), 0, stamp


def reliability_metrics(
    found: Mapping[str, Reliability], step: int, stamp: int
) -> Iterator[Metric]:
    """Signal over noise of metrics with its 90 % interval, after `step` complete trials.

    Not the objective's: its weights may change, and then one step would have two values.
    """
    for name, it in found.items():
        for key, value in it.to_json().items() if name != OBJECTIVE else ():
            if math.isfinite(value):
                yield f"reliability/{name}/{key}", value, step, stamp


def holdout_metrics(score: HoldoutScore, stamp: int) -> Iterator[Metric]:
    """How well the held-out trials were predicted, at the step of how many were measured."""
    found = {
        "n": float(score.n),
        "spearman": score.spearman,
        "spearman_low": score.low,
        "spearman_high": score.high,
        "mae": score.mae,
        "noise": math.nan if score.noise is None else score.noise,
        "inside": float(score.inside),
    }
    for name, value in found.items():
        if math.isfinite(value):
            yield f"holdout/{name}", value, score.n, stamp


def transfer_metrics(found: Transfer, stamp: int) -> Iterator[Metric]:
    """Rank correlation of the two sizes, and each mixture's mean and difference at the larger."""
    shown: dict[str, float | None] = {"rank_correlation": found.correlation}
    for it in found.rows:
        of = {"mean": it.mean, "difference": it.difference, "low": it.low, "high": it.high}
        shown |= {f"{it.name}/{key}": value for key, value in of.items()}
    for name, value in shown.items():
        if value is not None:
            yield f"transfer/{name}", value, found.fidelity.tokens, stamp


def _candidate_metrics(candidate: Candidate) -> dict[str, float | None]:
    predicted = candidate.predicted
    return {
        "mean": candidate.mean,
        "std": candidate.std,
        "n": candidate.n,
        "difference": candidate.difference,
        "difference_low": candidate.difference_low,
        "difference_high": candidate.difference_high,
        "adjusted_p": candidate.adjusted_p,
        **(
            {}
            if predicted is None
            else {f"predicted_{k}": v for k, v in predicted.to_json().items()}
        ),
        "inside": candidate.inside,
    }


def promotion_params(promotion: Promotion) -> dict[str, Any]:
    """What a promotion was made of, as parameters; sizes where they are known."""
    sizes = {"model_params": promotion.model_params, "active_params": promotion.active_params}
    return {
        **weights(promotion.mixture.as_dict()),
        "method": promotion.method,
        **{f"imported.{name}": model for name, model in promotion.imported.items()},
        "tokens": promotion.tokens,
        **{name: size for name, size in sizes.items() if size is not None},
    }


def promotion_finals(promotion: Promotion, stamp: int) -> Iterator[Metric]:
    """Metrics and costs of a promotion; `proxy_predicted…` is of a proxy's run."""
    for when, values, step in (
        ("seed", promotion.seed, 0),
        ("before", promotion.before, 0),
        ("after", promotion.after, promotion.tokens),
    ):
        for name, value in values.items():
            yield f"{when}/{name}", value, step, stamp
    spent = promotion.predicted_of.tokens
    for name, predicted in promotion.predicted.items():
        yield f"proxy_predicted/{name}", predicted.mean, spent, stamp
        yield f"proxy_predicted_std/{name}", predicted.std, spent, stamp
        yield f"proxy_predicted_low/{name}", predicted.low, spent, stamp
        yield f"proxy_predicted_high/{name}", predicted.high, spent, stamp
    for stage in promotion.stages:
        yield f"cost/{stage.name}/tokens", float(stage.tokens), 0, stamp
        yield f"cost/{stage.name}/device_seconds", stage.device_seconds, 0, stamp


def best_so_far(trials: Sequence[Trial], objective: Objective, start: int) -> list[Metric]:
    """Best objective and summed cost after each trial of the search, up to the first unfinished.

    Only such a prefix never changes any more, so that no step is shown twice with two values.
    """
    ordered = sorted(trials, key=lambda t: t.number)
    settled = itertools.takewhile(lambda t: t.ended, ordered)
    points: list[Metric] = []
    for number, step in enumerate(search_progress(list(settled), objective), start=1):
        stamp = start + number
        points += [
            ("best/objective", objective.sign * step.best, number, stamp),
            ("best/tokens", step.spent.tokens, number, stamp),
            ("best/device_seconds", step.spent.device_seconds, number, stamp),
        ]
    return points


def changed(path: Path) -> int:
    """When `path` was written, milliseconds since 1970; 0 if it is not there."""
    return round(path.stat().st_mtime * 1000) if path.exists() else 0


def text(value: Any) -> str:
    """A setting as a parameter's text."""
    return value if isinstance(value, str) else json.dumps(value)
