"""Trials, verdicts and promotions as what MLflow shows of them. Pure, but for files' times.

A metric is (name, value, step, milliseconds since 1970). All four are functions of what is shown,
never of when it is shown: MLflow then recognises what it has already.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixopt.core.formatting import count
from mixopt.core.objective import Objective
from mixopt.core.trials import Trial, TrialResult
from mixopt.io import trial_files
from mixopt.pipelines.views.mlflow import run_tags
from mixopt.pipelines.views.mlflow.mlflow_store import curve_metrics
from mixopt.study.queries import search_progress
from mixopt.study.results import Promotion, Verdict

Metric = tuple[str, float, int, int]


def weights(mixture: Mapping[str, float]) -> dict[str, str]:
    """A mixture as parameters."""
    return {f"mixture.{domain}": f"{weight:.6f}" for domain, weight in mixture.items()}


def trial_metrics(trial: Trial, home: Path, objective: Objective, start: int) -> Iterator[Metric]:
    """Objective, final metrics, cost, learning curve and routing of `trial`, begun at `start`.

    In this order, which MLflow's page of a run keeps. A curve's metrics are `curve/<metric>`, all
    on the same text; the final ones, which may be on more, are `<metric>`.
    Per validation domain, `router/peak_load` is the largest share that an expert has of the
    assignments, by an even share: 1 is balanced, the number of experts is all on one.
    """
    curve = trial_files.read_curve(home, trial)
    if trial.result is not None and curve:
        last, end = curve[-1].tokens, start + round(curve[-1].seconds * 1000)
        for name, value in _finals(trial, objective).items():
            yield name, value, last, end
    yield from curve_metrics(curve, start)
    if trial.result is not None and curve:
        for name, value in _routing(trial.result).items():
            yield name, value, last, end


def _finals(trial: Trial, objective: Objective) -> dict[str, float]:
    """Objective, metrics that it weighs, the other ones, and cost."""
    found: dict[str, float] = {}
    value = objective.of_trial(trial)
    if value is not None:
        found["objective"] = objective.sign * value
    metrics = dict(trial.metrics)
    found |= {name: metrics.pop(name) for name in objective.metrics if name in metrics}
    found |= {name: metrics.pop(name) for name in sorted(metrics) if name.startswith("bpb/")}
    found |= metrics
    if trial.result is not None:
        cost = trial.result.cost
        found["cost/device_seconds"] = cost.device_seconds
        found["cost/tokens"] = cost.tokens
        found["cost/flops"] = cost.flops
    return found


def _routing(result: TrialResult) -> dict[str, float]:
    found = {f"router/peak_load/{d}": max(load) * len(load) for d, load in result.loads.items()}
    found |= {f"router/entropy/{domain}": it for domain, it in result.entropies.items()}
    if any(result.dropped.values()):
        found |= {f"router/dropped/{domain}": share for domain, share in result.dropped.items()}
    return found


def trial_params(trial: Trial) -> dict[str, Any]:
    """What was asked for, as parameters: they never change."""
    spec, fidelity = trial.spec, trial.spec.fidelity
    return {
        "trial": trial.number,
        "role": spec.role,
        "round": spec.round,
        **({"candidate": spec.candidate} if spec.candidate else {}),
        "fidelity": f"{fidelity.model}, {count(fidelity.tokens)} tokens",
        "seed": spec.seed,
        **weights(spec.mixture.as_dict()),
        "model": fidelity.model,
        **({"active_params": fidelity.params} if fidelity.params_known else {}),
        "tokens": fidelity.tokens,
    }


def trial_tags(trial: Trial) -> dict[str, str]:
    """Where `trial` stands, to filter runs by."""
    tags = {run_tags.STATE: str(trial.state)}
    if trial.failure is not None:
        tags[run_tags.FAILURE] = str(trial.failure)
    return tags


def verdict_metrics(verdict: Verdict, stamp: int) -> Iterator[Metric]:
    """What studies are compared by: the selected mixture against the baseline.

    `objective` is the mean over fresh seeds, `difference_low` and `difference_high` the 90 %
    interval of the mean difference to the baseline, `adjusted_p` its one-sided p-value adjusted
    for the number of candidates, `multiplier` how many times the tokens the baseline would need.
    All else is in `verdict.json`.
    """
    winner, baseline = verdict.winner, verdict.candidate(verdict.baseline)
    found: dict[str, float | None] = {
        "objective": winner.mean,
        "baseline": None if baseline is None else baseline.mean,
    }
    if winner.name != verdict.baseline:
        found |= {
            "difference": winner.difference,
            "difference_low": winner.difference_low,
            "difference_high": winner.difference_high,
            "adjusted_p": winner.adjusted_p,
        }
    if winner.name in verdict.multipliers:
        found["multiplier"] = verdict.multipliers[winner.name].value
    for name, value in found.items():
        if value is not None:
            yield name, float(value), 0, stamp


def promotion_params(promotion: Promotion) -> dict[str, Any]:
    """What a promotion was made of, as parameters; sizes where they are known."""
    sizes = {"model_params": promotion.model_params, "active_params": promotion.active_params}
    return {
        "candidate": promotion.mixture_name,
        "method": promotion.method,
        **weights(promotion.mixture.as_dict()),
        **{f"imported.{name}": model for name, model in promotion.imported.items()},
        "tokens": promotion.tokens,
        **{name: size for name, size in sizes.items() if size is not None},
    }


def promotion_finals(promotion: Promotion, objective: Objective, stamp: int) -> Iterator[Metric]:
    """Objective, metrics and costs of a promotion; `proxy_predicted…` is of a proxy's run."""
    if all(name in promotion.metrics for name in objective.metrics):
        value = objective.shown.value(promotion.metrics)
        yield "objective", value, promotion.tokens if promotion.trained else 0, stamp
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
