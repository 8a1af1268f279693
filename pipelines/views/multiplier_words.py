"""Gains as compute multipliers, in words: the same on every page."""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.selection.multiplier import FARTHEST, Multiplier
from mixopt.selection.results import Candidate
from mixopt.study.results import Verdict

BOUND = (
    "a lower bound: a learning rate that decays makes the end of its curve steeper than longer "
    "runs are"
)


def multiplier_row(
    verdict: Verdict | None, candidates: Sequence[Candidate]
) -> list[tuple[str, list[str]]]:
    """The row of the compute multipliers: a label and a cell per candidate; none without any."""
    found = verdict.multipliers if verdict is not None else {}
    if verdict is None or not found:
        return []
    least = "at least " if any(it.lower_bound for it in found.values()) else ""
    label = f"tokens that {verdict.baseline} needs for it, {least}(90 %)"
    return [(label, [_cell(found.get(it.name)) for it in candidates])]


def multiplier_line(verdict: Verdict | None) -> str:
    """How many times the tokens the best candidate's gain is worth; empty where none is better."""
    found = verdict.multipliers if verdict is not None else {}
    if verdict is None or not found:
        return ""
    name = verdict.promoted if verdict.promoted in found else _best(verdict)
    times, baseline = found[name], verdict.baseline
    of = f"For what the {name} mixture reached, the {baseline} mixture would need"
    if times.value is None:
        more = "" if times.low is None else f", at least {times.low:.2f}"
        return f"{of} an unknown number of times the tokens{more}: {times.reason}."
    kind = f"; {BOUND}" if times.lower_bound else ""
    return f"{of} {times.value:.2f} times the tokens (90 % interval {_interval(times)}{kind})."


def multiplier_short(verdict: Verdict | None) -> str:
    """The same of the promoted mixture as a short sentence after others; empty if not known."""
    times = verdict.multipliers.get(verdict.promoted) if verdict is not None else None
    if times is None or times.value is None or verdict is None:
        return ""
    least = "at least " if times.lower_bound else ""
    return (
        f" The {verdict.baseline} mixture would need {least}{times.value:.2f} times the tokens "
        f"(90 % interval {_interval(times)})."
    )


def _best(verdict: Verdict) -> str:
    """The candidate with the largest gain of those that have a multiplier."""
    gains = {it.name: it.difference for it in verdict.candidates if it.difference is not None}
    return min(verdict.multipliers, key=lambda name: gains.get(name, 0.0))


def _interval(times: Multiplier) -> str:
    low = "?" if times.low is None else f"{times.low:.2f}"
    return f"{low} to " + (f"over {FARTHEST:g}" if times.high is None else f"{times.high:.2f}")


def _cell(times: Multiplier | None) -> str:
    if times is None:
        return "–"
    if times.value is None:
        return "not known" if times.low is None else f"> {times.low:.2f}×"
    return f"{times.value:.2f}× ({_interval(times)})"
