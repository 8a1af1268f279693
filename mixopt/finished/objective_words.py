"""`--objective metric=weight …` as an `Objective` over the metrics of finished runs.

Names are those of the file, in full or any part that only one of them has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from mixopt.errors import StudyError
from mixopt.finished.layouts import listed
from mixopt.finished.names import find_name
from mixopt.objective import Objective

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
            mend="Write metric=number, such as arxiv=1 or accuracy=-0.5",
        )
    return value
