"""What a verdict says of its guardrails."""

from __future__ import annotations

from mixopt.core.formatting import p_text, signed
from mixopt.selection.guarded import Guarded
from mixopt.selection.results import Candidate


def broken_guardrail(it: Guarded) -> str:
    """A guardrail that is not shown to hold, and what would show it."""
    if it.worse is None or it.low is None or it.high is None:
        return f"{it.metric}: no two seeds measured it"
    fact = (
        f"{it.metric} is worse by {it.worse:.4g}, 90 % interval {it.low:.4g} to {it.high:.4g}, "
        f"{it.allowed:.4g} allowed"
    ).replace(" -", " −")
    if it.worse >= it.allowed:
        return fact
    p = "" if it.p is None else f", adjusted p-value {p_text(it.p)}"
    would = f"; {it.seeds} seeds with this difference and scatter would show it" if it.seeds else ""
    return f"{fact}{p}{would}"


def kept_guardrails(report: Candidate) -> str:
    """The guardrails that the promoted mixture keeps to, as a further clause."""
    shown = [
        f"{it.metric} {signed(it.worse)} of {it.allowed:.4g} allowed"
        for it in report.guarded
        if it.worse is not None
    ]
    return f"; guardrails hold: {', '.join(shown)}" if shown else ""
