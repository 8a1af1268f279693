"""The reliability of metrics in words: lines, warnings, and the rows of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mixopt.surrogates.reliability import LEAST, Reliability
from mixopt.surrogates.scoring import OBJECTIVE

HEAD = (
    "metric",
    "signal over noise",
    "90 % interval",
    "sd over mixtures",
    "mixtures",
    "sd between seeds",
    "degrees of freedom",
    "ceiling",
)
NOTE = (
    "Signal over noise: the standard deviation of a metric over mixtures, cleaned of noise, over "
    "the standard deviation between seeds of one mixture. Ceiling: the rank correlation that a "
    "perfect prediction would have with one run of each mixture with a fresh seed. A surrogate of "
    "runs that share a seed may exceed it: it predicts that seed's error too."
)
SEEDS = "compare more seeds (select.seeds)"


def reliability_rows(found: Mapping[str, Reliability]) -> list[tuple[str, ...]]:
    """A row of `HEAD` per metric; the objective's is left out where it is one metric."""
    return [
        (
            name,
            ratio(it),
            _interval(it),
            f"{it.signal:.4g}",
            str(it.mixtures),
            f"{it.noise.std:.4g}",
            f"{it.noise.freedom:.3g}",
            ceiling_of(it),
        )
        for name, it in _shown(found).items()
    ]


def reliability_line(found: Mapping[str, Reliability]) -> str:
    """How reliable the objective is, as a sentence; empty where that is not known."""
    it = found.get(OBJECTIVE)
    if it is None:
        return ""
    return (
        f"Signal over noise of the objective: {_facts(it)}. The ceiling of a rank correlation is "
        f"{it.ceiling:.2f}."
    )


def reliability_warnings(found: Mapping[str, Reliability], seeds: str = SEEDS) -> list[str]:
    """A sentence per metric that ranks mixtures badly, with what to do about it.

    And one where seeds change nothing: the likeliest cause is a trainer that does not use them.

    Args:
        found: by metric.
        seeds: how more seeds are had here.
    """
    silent = [
        f"Seeds change nothing: {it.noise.runs} repeated runs gave the same "
        f"{'objective' if name == OBJECTIVE else name} for the same mixture. Let the trainer use "
        "its job's seed; else no difference can be told from chance, and nothing is selected."
        for name, it in _shown(found).items()
        if it.silent
    ]
    return silent + [
        f"{'The objective' if name == OBJECTIVE else name} ranks mixtures badly: signal over noise "
        f"{_facts(it)}, under {LEAST:g}. {_advice(name)}, or {seeds}."
        for name, it in _shown(found).items()
        if it.poor
    ]


def _advice(name: str) -> str:
    if name.startswith("bpb/"):  # nothing is smoother
        return "Evaluate on more text"
    return (
        "Evaluate on more data, use a smoother metric (the loss of right answers in place of an "
        "accuracy)"
    )


def left_out(found: Mapping[str, Reliability]) -> str:
    """That the metrics of `found` are left out of the default objective, and why."""
    each = ", ".join(f"{name} ({ratio(it)}, 90 % {_interval(it)})" for name, it in found.items())
    return (
        f"Left out of the objective, because their signal over noise is under {LEAST:g}: {each}. "
        "--objective weighs them all the same."
    )


def ceiling(found: Mapping[str, Reliability], name: str) -> str:
    """The ceiling of a rank correlation of that metric; a dash where it is not known."""
    return ceiling_of(found.get(name))


def ceiling_of(it: Reliability | None) -> str:
    """The same of one metric."""
    return "–" if it is None else f"{it.ceiling:.3f}"


def ratio(it: Reliability) -> str:
    """Signal over noise in short; ∞ where seeds change nothing."""
    return _number(it.ratio)


def _facts(it: Reliability) -> str:
    return (
        f"{ratio(it)} (90 % interval {_interval(it)}; standard deviation {it.signal:.3g} over "
        f"{it.mixtures} mixtures, {it.noise.std:.3g} between seeds, of {it.noise.runs} repeated "
        f"runs with {it.noise.freedom:.3g} degree{'s' * (it.noise.freedom != 1)} of freedom)"
    )


def _interval(it: Reliability) -> str:
    return f"{_number(it.low)} to {_number(it.high)}"


def _number(value: float) -> str:
    if math.isinf(value):
        return "∞"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _shown(found: Mapping[str, Reliability]) -> dict[str, Reliability]:
    """Without the objective where it is one metric, which says the same."""
    metrics = {name: it for name, it in found.items() if name != OBJECTIVE}
    whole = found.get(OBJECTIVE)
    if whole is None or any(math.isclose(whole.ratio, it.ratio) for it in metrics.values()):
        return metrics
    return metrics | {OBJECTIVE: whole}
