"""Trials and their learning curves as tables, for analysis, CSV and MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from mixopt.core.objective import Objective
from mixopt.core.trials import CurvePoint, Trial
from mixopt.study.measured import Measured
from mixopt.study.results import Verdict

LEADING = {
    "trial": pl.Int64,
    "state": pl.String,
    "role": pl.String,
    "round": pl.Int64,
    "candidate": pl.String,
    "seed": pl.Int64,
    "model": pl.String,
    "params": pl.Int64,
    "tokens": pl.Int64,
}
CLOSING = {
    "device_seconds": pl.Float64,
    "flops": pl.Float64,
    "attempts": pl.Int64,
    "failure": pl.String,
    "message": pl.String,
}
CANDIDATE = {
    "candidate": pl.String,
    "selected": pl.Boolean,
    "seeds": pl.Int64,
    **dict.fromkeys(("mean", "std", "difference", "low", "high", "adjusted_p"), pl.Float64),
    **dict.fromkeys(("predicted", "predicted_low", "predicted_high"), pl.Float64),
}
DIFFERENCE = {
    "metric": pl.String,
    "candidate": pl.String,
    **dict.fromkeys(("baseline", "difference", "low", "high"), pl.Float64),
    "better": pl.Boolean,
    "worse": pl.Boolean,
    "allowed": pl.Float64,
}
CURVE = {"trial": pl.Int64, "step": pl.Int64, "tokens": pl.Int64, "seconds": pl.Float64}


def trials_frame(trials: Sequence[Trial], objective: Objective | None = None) -> pl.DataFrame:
    """A row per trial, by number.

    Args:
        trials: of one study, in any state; what a trial does not have is null.
        objective: adds the column `objective` where the trial measured all that it needs; as people
            read it (`Objective.shown`).

    Returns:
        Columns: `trial`, `state`, `role`, `round`, `candidate`, `seed`, `model`, `params`,
        `tokens`; a column `mixture.<domain>` per domain; `objective` if asked for; a column per
        metric (bits per byte, nats per token); `device_seconds`, `flops`, `attempts`, `failure`,
        `message`.
    """
    ordered = sorted(trials, key=lambda t: t.number)
    # dicts keep first-seen order, so domains and metrics stand as the study names them
    domains = list(dict.fromkeys(d for t in ordered for d in t.spec.mixture.domains))
    metrics = list(dict.fromkeys(m for t in ordered for m in t.metrics))
    schema: dict[str, type[pl.DataType]] = {
        **LEADING,
        **{f"mixture.{domain}": pl.Float64 for domain in domains},
        **({"objective": pl.Float64} if objective is not None else {}),
        **dict.fromkeys(metrics, pl.Float64),
        **CLOSING,
    }
    rows = [_row(trial, objective) for trial in ordered]
    return pl.DataFrame(rows, schema=schema)


def _row(trial: Trial, objective: Objective | None) -> dict[str, object]:
    spec, cost = trial.spec, trial.result.cost if trial.result is not None else None
    return {
        "trial": trial.number,
        "state": str(trial.state),
        "role": str(spec.role),
        "round": spec.round,
        "candidate": spec.candidate or None,
        "seed": spec.seed,
        "model": spec.fidelity.model,
        "params": spec.fidelity.params if spec.fidelity.params_known else None,
        "tokens": spec.fidelity.tokens,
        **{f"mixture.{d}": w for d, w in spec.mixture.as_dict().items()},
        **({"objective": objective.shown.of_trial(trial)} if objective is not None else {}),
        **trial.metrics,
        "device_seconds": cost.device_seconds if cost else None,
        "flops": cost.flops if cost else None,
        "attempts": trial.attempts,
        "failure": str(trial.failure) if trial.failure else None,
        "message": trial.message or None,
    }


def curves_frame(
    curves: Mapping[int, Sequence[CurvePoint]], objective: Objective | None = None
) -> pl.DataFrame:
    """A row per evaluation, by trial and step.

    Args:
        curves: number of the trial → its evaluations.
        objective: adds the column `objective` where the evaluation measured all that it needs.

    Returns:
        Columns: `trial`, `step`, `tokens`, `seconds`; `objective` if asked for; a column per metric
        (bits per byte, nats per token), and `train/…` per number of the training
        (`CurvePoint.training`). All metrics of a trial are on the same text, so that they compare;
        a result that was measured on more text is in `trials_frame`.
    """
    points = [(number, point) for number in sorted(curves) for point in curves[number]]
    schema: dict[str, type[pl.DataType]] = {
        **CURVE,
        **({"objective": pl.Float64} if objective is not None else {}),
        **dict.fromkeys((m for _, point in points for m in point.comparable), pl.Float64),
        **dict.fromkeys((f"train/{n}" for _, p in points for n in p.training), pl.Float64),
    }
    return pl.DataFrame([_point_row(n, p, objective) for n, p in points], schema=schema)


def _point_row(number: int, point: CurvePoint, objective: Objective | None) -> dict[str, object]:
    metrics = point.comparable
    row: dict[str, object] = {"trial": number, "step": point.step, "tokens": point.tokens}
    row |= {"seconds": point.seconds, **metrics}
    row |= {f"train/{name}": value for name, value in point.training.items()}
    if objective is not None and metrics.keys() >= set(objective.metrics):
        row["objective"] = objective.shown.value(metrics)
    return row


def candidates_frame(verdict: Verdict | None) -> pl.DataFrame:
    """A row per candidate of the verdict's selection, the baseline first; none before a verdict.

    Returns:
        Columns: `candidate`, `selected`, `seeds`; `mean` and `std` of the objective over seeds;
        `difference` from the baseline over shared seeds with `low` and `high`, its 90 % interval;
        `adjusted_p`; `predicted` before the runs with `predicted_low` and `predicted_high`.
    """
    rows = [
        {
            "candidate": it.name,
            "selected": verdict is not None and it.name == verdict.promoted,
            "seeds": it.n,
            "mean": it.mean,
            "std": it.std,
            "difference": it.difference,
            "low": it.difference_low,
            "high": it.difference_high,
            "adjusted_p": it.adjusted_p,
            "predicted": None if it.predicted is None else it.predicted.mean,
            "predicted_low": None if it.predicted is None else it.predicted.low,
            "predicted_high": None if it.predicted is None else it.predicted.high,
        }
        for it in (verdict.candidates if verdict is not None else ())
    ]
    return pl.DataFrame(rows, CANDIDATE)


def differences_frame(measured: Sequence[Measured]) -> pl.DataFrame:
    """A row per metric and candidate: its difference from the baseline.

    Returns:
        Columns: `metric`, `candidate`; `baseline`, the baseline's mean over its seeds; `difference`
        with `low` and `high`, its 90 % interval; `better` and `worse`, whether the interval lies on
        that side of 0; `allowed`, how much worse a guardrail lets the metric get.
    """
    rows = [
        {
            "metric": it.metric,
            "candidate": name,
            "baseline": it.baseline,
            "difference": found.difference,
            "low": found.low,
            "high": found.high,
            "better": found.better,
            "worse": found.worse,
            "allowed": it.allowed,
        }
        for it in measured
        for name, found in it.differences.items()
    ]
    return pl.DataFrame(rows, DIFFERENCE)
