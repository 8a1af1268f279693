"""What a study found, in words: one sentence, and a page in Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from mixopt.core.formatting import count
from mixopt.core.intervals import NORMAL_90
from mixopt.core.objective import Objective
from mixopt.core.trials import Role, State, Trial
from mixopt.pipelines.views.verbatim import verbatim
from mixopt.study.frames import objective_value
from mixopt.surrogates.noise import Forecast, SeedScatter, seed_scatter_of

AGAINST = "against natural ± 90 %"  # names of rows: the mean difference on equal seeds, and
ADJUSTED = "adjusted p-value"  # its one-sided p-value, adjusted for the number of candidates
OVER_SEEDS = "± sd over seeds"  # of a row of measured means
PROXY_NOTE = (
    "Proxy: predicted for one run on this mixture with a fresh seed, ± half its 90 % interval. It "
    "is another model at another budget, not a prediction of the promoted one."
)
UNREPEATED = (
    "no mixture was run with several seeds, so what a seed does is not known "
    "(search.repeats: 2 would tell)"
)


def command(*words: object) -> str:
    """A command of ours, as a shell takes it whatever is in its paths."""
    return shlex.join(["mixopt", *map(str, words)])


def duration(seconds: float) -> str:
    """A duration in short: 42 s, 3.5 min, 2.1 h."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def unit(objective: Objective) -> str:
    """The unit of the objective: bits per byte, or none if it weighs other metrics."""
    plain = all(name.startswith("bpb/") and w > 0 for name, w in objective.weights.items())
    return "bits per byte" if plain else ""


def candidate_of(verdict: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The candidate called `name` in a verdict; empty if there is none."""
    return next((dict(a) for a in verdict.get("candidates", []) if a.get("name") == name), {})


def headline(trials: Sequence[Trial], objective: Objective, verdict: Mapping[str, Any]) -> str:
    """One sentence on where the study stands: the verdict, or the best trial so far."""
    if not verdict:
        return _progress(trials, objective)
    promoted = str(verdict.get("promoted", ""))
    winner, natural = candidate_of(verdict, promoted), candidate_of(verdict, "natural")
    what = unit(objective)
    if not verdict.get("improved", promoted != "natural") or not (
        winner.get("mean") and natural.get("mean")
    ):
        reason = str(verdict.get("reason", "")).strip().rstrip(".")
        return f"The {promoted} mixture is promoted" + (f": {reason}." if reason else ".")
    gain = float(natural["mean"]) - float(winner["mean"])
    evidence = _difference(winner)
    if winner.get("adjusted_p") is not None:
        evidence.append(f"{ADJUSTED} {p_value(winner)}")
    return (
        f"The {promoted} mixture is promoted: {_mean_sd(winner, what)} against "
        f"{_mean_sd(natural)} for the natural mixture, at equal tokens over {winner.get('n', '?')} "
        f"fresh seeds ({'−' if gain >= 0 else '+'}{abs(gain) / abs(natural['mean']):.1%}"
        + "".join(f"; {item}" for item in evidence)
        + ")."
    )


def _mean_sd(candidate: Mapping[str, Any], unit: str = "") -> str:
    std = candidate.get("std")
    mean = f"{float(candidate['mean']):.4f}{' ' + unit if unit else ''}"
    return mean if std is None else f"{mean} (sd over seeds {float(std):.4f})"


def _difference(candidate: Mapping[str, Any]) -> list[str]:
    """The measured difference to natural in a sentence; nothing for natural itself."""
    gap, low, high = (candidate.get(f"difference{end}") for end in ("", "_low", "_high"))
    if gap is None or candidate.get("name") == "natural":
        return []
    said = f"difference {gap:.4f}"
    if low is not None and high is not None:
        said += f", 90 % {_between(low, high)}"
    return [said.replace("-", "−")]


def difference_interval(candidate: Mapping[str, Any], digits: int) -> str:
    """The difference to natural, ± half its 90 % interval; a dash for natural itself."""
    gap, low, high = (candidate.get(f"difference{end}") for end in ("", "_low", "_high"))
    if gap is None or candidate.get("name") == "natural":
        return "–"
    difference = f"{gap:+.{digits}f}".replace("-", "−")
    return difference if low is None else f"{difference} ± {(high - low) / 2:.{digits}f}"


def gate_rows(candidates: Sequence[Mapping[str, Any]], digits: int) -> list[tuple[str, list[str]]]:
    """What the gate goes by, a label and a cell per candidate: the same in every table."""
    return [
        (AGAINST, [difference_interval(candidate, digits) for candidate in candidates]),
        (ADJUSTED, [p_value(candidate) for candidate in candidates]),
    ]


def gate_level(verdict: Mapping[str, Any], confidence: float) -> str:
    """At which adjusted p-value the gate promotes, and at which look.

    Older verdicts name neither: theirs was the only look, at 1 - `confidence`.
    """
    look, level = verdict.get("look"), verdict.get("level", 1 - confidence)
    if look and not level:
        return f"All {look['of']} looks (select.looks) were used up: nothing could be promoted."
    at = f" at look {look['number']} of {look['of']}" if look and look["of"] > 1 else ""
    return f"The gate promotes at {level:.3g} or less{at}."


def p_value(candidate: Mapping[str, Any]) -> str:
    """The adjusted p-value of a candidate; a dash where there is none."""
    p = candidate.get("adjusted_p")
    if p is None:
        return "–"
    return "< 0.001" if p < 1e-3 else f"{p:.3f}"


def before_selection(said: Forecast, objective: Objective) -> str:
    """What a search foretells of the mixture that it recommends, before anything is run for it."""
    if said.scatter is None:
        return (
            f"recommended: {_amount(said.mean, objective)}, 90 % {_between(*said.this_seed)} for "
            f"the search's seed only; {UNREPEATED}"
        )
    return (
        f"recommended: {_amount(said.mean, objective)}, 90 % {_between(*said.within())} for the "
        f"mean over seeds, {_between(*said.this_seed)} for the search's own; "
        f"{_scattered(said.scatter)}"
    )


def foretold(verdict: Mapping[str, Any], objective: Objective) -> str:
    """Whether the mean over fresh seeds is what the search foretold; empty where nobody can say.

    Of the recommended mixture, or of the promoted one where that is no candidate of its own.
    """
    names = ("recommended", str(verdict.get("promoted", "")))
    candidate = next((a for name in names if (a := candidate_of(verdict, name))), {})
    if candidate.get("inside") is None:
        return ""
    low, high = float(candidate["predicted_low"]), float(candidate["predicted_high"])
    scatter = verdict.get("seed_scatter")
    said = (
        f"The search foretold {_amount(float(candidate['predicted_mean']), objective)} of the "
        f"{candidate['name']} mixture, 90 % {_between(low, high)} for "
        + (f"the mean over {candidate['n']} fresh seeds" if scatter else "its own seed only")
        + f"; measured {float(candidate['mean']):.4f}, {_side(candidate)}."
    )
    others = [
        a
        for a in verdict["candidates"]
        if a["name"] != candidate["name"] and a.get("inside") is not None
    ]
    if others:
        said += f" Of the other mixtures {sum(map(_inside, others))} of {len(others)} are inside."
    if scatter:
        said += f" {_scattered(SeedScatter(**scatter)).capitalize()}."
    return said


def interval(candidate: Mapping[str, Any], digits: int) -> str:
    """The prediction of a candidate ± half the width of its 90 % interval; a dash if none.

    Candidates of older verdicts have a deviation alone, for the search's seed.
    """
    mean, std, low, high = (
        candidate.get(f"predicted_{key}") for key in ("mean", "std", "low", "high")
    )
    if mean is None:
        return "–"
    if low is not None and high is not None:
        return f"{mean:.{digits}f} ± {(high - low) / 2:.{digits}f}"
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {NORMAL_90 * std:.{digits}f}")


def interval_label(verdict: Mapping[str, Any]) -> str:
    """What `interval` says, as the name of a row."""
    known = verdict.get("seed_scatter")
    return "predicted mean ± 90 %" if known else "predicted ± 90 %, one seed only"


def mixtures_note(verdict: Mapping[str, Any]) -> str:
    """What each ± of the table of mixtures is: the same words on every page."""
    note = (
        "Measured: mean ± standard deviation over seeds; lower is better. ± 90 % is half the width "
        "of a 90 % interval: against natural, of the mean difference over equal seeds; "
        "predicted, "
    )
    if verdict.get("seed_scatter"):
        return note + "of the mean over those seeds, the search's own seed allowed for."
    return note + "for the search's own seed only."


def _inside(candidate: Mapping[str, Any]) -> bool:
    return bool(candidate["inside"])


def _side(candidate: Mapping[str, Any]) -> str:
    if _inside(candidate):
        return "inside"
    return "below" if float(candidate["mean"]) < float(candidate["predicted_low"]) else "above"


def _scattered(scatter: SeedScatter) -> str:
    return (
        f"seed standard deviation of a run {scatter.std:.4f}, from {scatter.runs} repeated runs "
        f"({scatter.freedom:.3g} effective degree{'s' * (scatter.freedom != 1)} of freedom)"
    )


def _between(low: float, high: float) -> str:
    return f"between {low:.4f} and {high:.4f}"


def _amount(value: float, objective: Objective) -> str:
    what = unit(objective)
    return f"{value:.4f}{' ' + what if what else ''}"


def markdown(
    name: str,
    trials: Sequence[Trial],
    objective: Objective,
    verdict: Mapping[str, Any],
    promotion: Mapping[str, Any],
) -> str:
    """A page about study `name` for MLflow's description of a run."""
    lines = [f"## {verbatim(name)}", "", verbatim(headline(trials, objective, verdict)), ""]
    said = foretold(verdict, objective)
    lines += [verbatim(said), ""] if said else []
    lines.append(_table(verdict))
    binding = [verbatim(str(line)) for line in verdict.get("binding", [])]
    if binding:
        lines += ["**Constraints that bind:** " + "; ".join(binding) + ".", ""]
    if promotion.get("after"):
        lines += ["### Promoted model", "", promotion_markdown(promotion), ""]
    counts = {state: sum(t.state is state for t in trials) for state in State}
    cost = [t.result.cost for t in trials if t.result is not None]
    lines += [
        "**Trials:** " + ", ".join(f"{n} {state}" for state, n in counts.items() if n)
        if trials
        else "**Trials:** none yet",
        "",
        f"**Cost:** {count(sum(c.tokens for c in cost))} tokens, "
        f"{duration(sum(c.device_seconds for c in cost))} of device time, "
        f"{sum(c.flops for c in cost):.2g} FLOPs.",
        "",
        "**Objective:** "
        + " + ".join(f"{w:.3g} × {verbatim(m)}" for m, w in objective.weights.items()),
    ]
    return "\n".join(lines)


def best_trial(trials: Sequence[Trial], objective: Objective) -> Trial | None:
    """The complete trial of the search with the least objective."""
    scored = [
        (value, trial.number, trial)
        for trial in trials
        if trial.spec.role is not Role.SELECT
        and (value := objective_value(trial, objective)) is not None
    ]
    return min(scored)[2] if scored else None


def _progress(trials: Sequence[Trial], objective: Objective) -> str:
    states = (State.COMPLETE, State.PRUNED, State.FAILED)
    done, pruned, failed = (sum(t.state is s for t in trials) for s in states)
    said = f"{done} of {len(trials)} trials are complete"
    said += f", {pruned} pruned" if pruned else ""
    said += f", {failed} failed" if failed else ""
    best = best_trial(trials, objective)
    if best is None:
        return said + "."
    scatter = seed_scatter_of(trials, objective, best.spec.fidelity)
    return (
        f"{said}; the best so far is trial {best.number} with "
        f"{_amount(objective.value(best.metrics), objective)}, of one seed: "
        f"{UNREPEATED if scatter is None else _scattered(scatter)}. Nothing is selected yet."
    )


def _pair(candidate: Mapping[str, Any]) -> str:
    mean, std = float(candidate["mean"]), candidate.get("std")
    return f"{mean:.4f} ± {float(std):.4f}" if std is not None else f"{mean:.4f}"


def _table(verdict: Mapping[str, Any]) -> str:
    candidates = verdict.get("candidates", [])
    if not candidates:
        return ""
    domains = list(
        dict.fromkeys(d for candidate in candidates for d in candidate.get("mixture", {}))
    )
    rows = [
        "| | " + " | ".join(verbatim(str(a["name"])) for a in candidates) + " |",
        "|---|" + "---:|" * len(candidates),
    ]
    measured = [_pair(a) if a.get("mean") is not None else "–" for a in candidates]
    rows.append(f"| **objective** {OVER_SEEDS} | " + " | ".join(measured) + " |")
    rows += [
        f"| {label} | " + " | ".join(cells) + " |"
        for label, cells in gate_rows(candidates, 4)
        if any(cell != "–" for cell in cells)
    ]
    if any(a.get("predicted_mean") is not None for a in candidates):
        cells = " | ".join(interval(a, 4) for a in candidates)
        rows.append(f"| {interval_label(verdict)} | {cells} |")
    for domain in domains:
        weights = [f"{a.get('mixture', {}).get(domain, 0):.3f}" for a in candidates]
        rows.append(f"| {verbatim(domain)} | " + " | ".join(weights) + " |")
    return "\n".join([*rows, "", mixtures_note(verdict), ""])


def promotion_markdown(promotion: Mapping[str, Any]) -> str:
    """What the promoted model reached, as a table in Markdown."""
    before, after = promotion.get("before") or {}, promotion.get("after") or {}
    rows = [
        f"| metric | upcycled, untrained | trained | {proxy_label(promotion)} |",
        "|---|---:|---:|---:|",
    ]
    for name, value in after.items():
        start = f"{before[name]:.4f}" if name in before else "–"
        proxy = interval(promised(promotion, name), 4)
        rows.append(f"| {verbatim(name)} | {start} | {value:.4f} | {proxy} |")
    if promotion.get("predicted"):
        rows += ["", PROXY_NOTE]
    return "\n".join(rows)


def proxy_label(promotion: Mapping[str, Any]) -> str:
    """What is predicted beside a promoted model: a proxy, its size and its tokens."""
    of = promotion.get("predicted_of") or {}
    if not of:  # of an older version
        return "proxy, predicted"
    return (
        f"proxy of {count(of['params'])} parameters after {count(of['tokens'])} tokens, predicted"
    )


def promised(promotion: Mapping[str, Any], metric: str) -> dict[str, float]:
    """One metric's prediction of a proxy on the promoted mixture, under a candidate's keys."""
    mean_std = (promotion.get("predicted") or {}).get(metric) or ()
    low_high = (promotion.get("predicted_interval") or {}).get(metric) or ()
    return dict(zip(("predicted_mean", "predicted_std"), mean_std, strict=False)) | dict(
        zip(("predicted_low", "predicted_high"), low_high, strict=False)
    )
