"""`--objective metric=weight …` as an `Objective` over the metrics of finished runs.

Names are those of the file, in full or any part that only one of them has.
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
    """Whether a metric's name says that it should be large.

    Args:
        metric: such as `arc_easy/acc`, `pass@1`; a name with `loss` or `bpb` in it never is.
        layout: `admire`: all are benchmark scores unless the name says otherwise.
    """
    words = set(re.split(r"[^a-z0-9]+", metric.lower()))
    if words & LOWER:
        return False
    return layout == "admire" or bool(words & HIGHER)


def refuse_mixed_scales(metrics: Sequence[str], values: np.ndarray) -> None:
    """Make sure that a plain mean over `metrics` is not that of one of them alone.

    Args:
        metrics: q names.
        values: (n, q) what the runs measured, NaN where nothing.

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
    asked: Sequence[str], metrics: Sequence[str], layout: str = ""
) -> tuple[Objective, list[str]]:
    """The objective over `metrics`, and what a person should know of it.

    Args:
        asked: `metric=weight` each; a negative weight for what should be large. The mean of all
            metrics if there is none, each with the sign that its name tells.
        metrics: names in the file.
        layout: of the file (see `higher_is_better`).

    Raises:
        StudyError: a metric is unknown or could be several, is named twice, or a weight is no
            number; or all weights are 0.
    """
    high = [metric for metric in metrics if higher_is_better(metric, layout)]
    if not asked:
        weights = {metric: -1.0 if metric in high else 1.0 for metric in metrics}
        notes = [
            "The objective is the mean of all metrics, lower is better; --objective metric=weight "
            "changes it."
        ]
        if len(high) == len(metrics):
            notes = [
                "The objective is minus the mean of all metrics, because they are scores of which "
                "higher is better; --objective metric=weight changes it."
            ]
        elif high:
            notes.append(f"Higher is better, by their names (weight negative): {listed(high)}.")
        return Objective(weights, prefix=""), notes
    weights = {}
    for text in asked:
        name, sign, said = text.rpartition("=")
        metric = find_name(name if sign else text, metrics, "metric", "--objective")
        if metric in weights:
            raise StudyError(f"metric {metric!r} is named twice", where=f"--objective {text}")
        weights[metric] = _weight(said, text) if sign else 1.0
    notes = [
        f"{metric} is minimised as asked, though its name says that higher is better; a negative "
        "weight maximises it."
        for metric in weights
        if metric in high and weights[metric] > 0
    ]
    return Objective(weights, prefix=""), notes


def _weight(said: str, text: str) -> float:
    try:
        value = float(said)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise StudyError(
            f"{said!r} is not a weight",
            where=f"--objective {text}",
            hint="Write metric=number, such as arxiv=1 or accuracy=-0.5",
        )
    return value
