"""`--objective metric=weight …` as an `Objective` over the metrics of finished runs.

A metric may be given by its whole name or by any part that no other metric's name has.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence

import numpy as np

from mixopt.core.errors import StudyError
from mixopt.core.objective import Objective
from mixopt.offline.layouts import listed
from mixopt.offline.names import find_name

# How many times larger, in median and in interquartile range, a metric must be for the mean to be
# refused. The largest factor that both exceed in the published tables is 7.0 (olmix, 110 tasks).
APART = 30.0
# fmt: off
HIGHER = {
    "acc", "accuracy", "score", "scores", "em", "exact", "f1", "pass", "bleu", "rouge", "chrf",
    "auc", "auroc", "win", "winrate", "reward", "recall", "precision", "correct", "mcc",
}
LOWER = {
    "loss", "bpb", "bits", "nll", "ppl", "perplexity", "ce", "error", "err", "mae", "mse", "rmse",
}
# fmt: on


def higher_is_better(metric: str, layout: str = "") -> bool:
    """Whether a metric's name implies that higher is better.

    Args:
        metric: such as `arc_easy/acc`, `pass@1`; never true of a name with `loss` or `bpb` in it.
        layout: `admire`: every metric is a benchmark score unless its name implies otherwise.
    """
    words = set(re.split(r"[^a-z0-9]+", metric.lower()))
    if words & LOWER:
        return False
    return layout == "admire" or bool(words & HIGHER)


def refuse_mixed_scales(metrics: Sequence[str], values: np.ndarray) -> None:
    """Refuse a plain mean over `metrics` that one of them would dominate.

    Args:
        metrics: q names.
        values: (n, q) measured values, NaN where there is none.

    Raises:
        StudyError: of two metrics one has a median and an interquartile range more than `APART`
            times those of the other.
    """
    measured = np.isfinite(values).any(axis=0)
    names = [metric for metric, known in zip(metrics, measured, strict=True) if known]
    values = values[:, measured]
    size = np.nanmedian(np.abs(values), axis=0)
    low, high = np.nanquantile(values, [0.25, 0.75], axis=0)
    spread = high - low
    apart = (size[:, None] > APART * size) & (spread[:, None] > APART * spread) & (spread > 0)
    if not apart.any():
        return
    large = int(np.where(apart.any(axis=1), size, -np.inf).argmax())
    small = int(np.where(apart[large], size, np.inf).argmin())
    alike = [name for name, far in zip(names, apart[large], strict=True) if far]
    example = " ".join(f"--objective {shlex.quote(f'{name}=1')}" for name in alike[:3])
    raise StudyError(
        f"metrics differ in scale: {names[large]!r} is about {size[large]:.4g}, {names[small]!r} "
        f"about {size[small]:.4g}; their mean would follow {names[large]!r} alone",
        where="--objective",
        hint=f"Name the metrics to minimise, such as {example}",
    )


def objective_of(
    asked: Sequence[str], metrics: Sequence[str], layout: str = "", left_out: int = 0
) -> tuple[Objective, list[str]]:
    """The objective over `metrics`, and notes for the user.

    Args:
        asked: `metric=weight` each; a negative weight for a metric to maximise. If empty, the mean
            of all metrics, each with the sign that its name implies.
        metrics: names in the file.
        layout: of the file (see `higher_is_better`).
        left_out: how many more metrics the file has, which do not count.

    Raises:
        StudyError: a metric is unknown, ambiguous or named twice, a weight is not a number, or all
            weights are 0.

    >>> objective_of(["arxiv=2", "gsm8k=-1"], ["val/arxiv_loss", "gsm8k_acc"])[0].weights
    {'val/arxiv_loss': 0.6666666666666666, 'gsm8k_acc': -0.3333333333333333}
    """
    high = [metric for metric in metrics if higher_is_better(metric, layout)]
    if not asked:
        return _mean(metrics, high), [
            f"The objective is the mean of all metrics{f' but {left_out}' if left_out else ''}. "
            f"{_directions(metrics, high)} --objective metric=weight changes it."
        ]
    weights: dict[str, float] = {}
    for text in asked:
        name, sign, weight = text.rpartition("=")
        metric = find_name(name if sign else text, metrics, "metric", "--objective")
        if metric in weights:
            raise StudyError(f"metric {metric!r} is named twice", where=f"--objective {text}")
        weights[metric] = _weight(weight, text) if sign else 1.0
    maximised = [metric for metric in weights if weights[metric] < 0]
    notes = [_directions(list(weights), maximised, "as asked")]
    notes += [
        f"{metric} is minimised as asked, though its name says that higher is better; a negative "
        "weight maximises it."
        for metric in weights
        if metric in high and weights[metric] > 0
    ]
    return Objective(weights, prefix=""), notes


def _mean(metrics: Sequence[str], high: Sequence[str]) -> Objective:
    return Objective({m: -1.0 if m in high else 1.0 for m in metrics}, prefix="")


def _directions(metrics: Sequence[str], maximised: Sequence[str], why: str = "") -> str:
    """Which of `metrics` count with which sign, and `why`: one sentence or two.

    >>> _directions(["loss", "qa_acc"], ["qa_acc"])
    'Minimised: loss. Maximised (scores, by their names or the layout): qa_acc.'
    """
    minimised = [metric for metric in metrics if metric not in maximised]
    parts = (
        ("Minimised", minimised, why),
        ("Maximised", maximised, why or "scores, by their names or the layout"),
    )
    return " ".join(
        f"{verb}{f' ({reason})' if reason else ''}: {listed(names)}."
        for verb, names, reason in parts
        if names
    )


def _weight(weight: str, text: str) -> float:
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise StudyError(
            f"{weight!r} is not a weight",
            where=f"--objective {text}",
            hint="Write metric=number, such as arxiv=1 or accuracy=-0.5",
        )
    return value
