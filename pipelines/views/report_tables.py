"""The tables of a report: mixtures, candidates, metrics, effects, the bill, and all trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mixopt.core.formatting import count, duration, flops, signed
from mixopt.core.intervals import NORMAL_90
from mixopt.core.trials import Cost, Role, State, Trial
from mixopt.pipelines.views.multiplier_words import multiplier_row
from mixopt.pipelines.views.page.parts import Cell, Table, strips
from mixopt.pipelines.views.report_columns import Column
from mixopt.pipelines.views.wording import (
    ADJUSTED,
    against,
    difference_interval,
    gate_level,
    interval,
    mixtures_note,
    p_value,
    unit,
)
from mixopt.selection.results import Candidate
from mixopt.selection.trade_offs import TradeOff
from mixopt.study.measured import Measured
from mixopt.study.results import Promotion, Verdict
from mixopt.study.snapshot import Snapshot
from mixopt.surrogates.effects import POINTS, Effects

MOST_WEIGHTS = 12  # columns of weights in the table of trials; the rest is in `mixopt trials`
MOST_VALUES = 8  # columns of metrics there


def mixture_table(snapshot: Snapshot, columns: Sequence[Column]) -> list[Table]:
    """Weights of all mixtures, with the baseline's beside the chosen one, and implied epochs."""
    if not columns:
        return []
    base = next((c for c in columns if c.name == snapshot.baseline), columns[0])
    chosen = next((c for c in columns if c.chosen), columns[-1])
    others = [c for c in columns if c not in (base, chosen)]
    domains = list(dict.fromkeys(d for c in columns for d in c.mixture.domains))
    domains.sort(key=lambda d: -chosen.mixture.as_dict().get(d, 0.0))
    alone = chosen is base
    heads = [base.name] if alone else [base.name, chosen.name, "change in points"]
    known = bool(snapshot.available)
    heads += (["epochs"] if alone else ["epochs then → now"]) if known else []
    rows = [_domain_row(snapshot, domain, base, chosen, others) for domain in domains]
    note = ""
    if known:
        note = (
            f"Epochs: how often a run of {count(snapshot.study.budget)} tokens would read the "
            "domain's training tokens."
        )
    return [
        Table(
            ("domain", *heads, *(c.name for c in others)),
            rows,
            note,
            chosen=-1 if alone or not chosen.chosen else 2,
        )
    ]


def _domain_row(
    snapshot: Snapshot, domain: str, base: Column, chosen: Column, others: Sequence[Column]
) -> list[str | Cell]:
    was, now = (c.mixture.as_dict().get(domain, 0.0) for c in (base, chosen))
    row: list[str | Cell] = [domain, Cell(f"{was:.1%}", bar=was)]
    if chosen is not base:
        row += [Cell(f"{now:.1%}", bar=now), signed(100 * (now - was), 1)]
    if snapshot.available:
        both = [_epochs(snapshot, domain, weight) for weight in (was, now)]
        row.append(both[0] if chosen is base else " → ".join(both))
    return [*row, *(f"{c.mixture.as_dict().get(domain, 0.0):.1%}" for c in others)]


def _epochs(snapshot: Snapshot, domain: str, weight: float) -> str:
    tokens = snapshot.available.get(domain)
    if not tokens:
        return "–"
    epochs = weight * snapshot.study.budget / tokens
    return f"{epochs:.2g}×" if epochs >= 0.01 or not epochs else "< 0.01×"


def binding_table(verdict: Verdict | None, sign: int) -> list[Table]:
    """The constraints that hold the recommended mixture, each with its price."""
    if verdict is None or not verdict.binding:
        return []
    word = "higher" if sign == -1 else "lower"
    rows = []
    for line in verdict.binding:
        price = verdict.prices.get(line)  # not priced where there are too many
        rows.append((line, "not computed" if price is None else f"{price:.4f} {word}"))
    return [
        Table(
            ("constraint that binds the recommended mixture", "the optimum without it"),
            rows,
            "Price: how much better the surrogate's optimum would be predicted without that one "
            "constraint.",
        )
    ]


def candidate_table(snapshot: Snapshot, columns: Sequence[Column]) -> list[Table]:
    """A row per candidate: measured, difference with its interval, guardrails, prediction."""
    verdict, sign = snapshot.verdict, snapshot.objective.sign
    if verdict is None:
        return _measured_only(snapshot, columns)
    shown = [(c.measured or Candidate(c.name, c.mixture)).turned(sign) for c in columns]
    drawn = strips([_ends(it, verdict.baseline) for it in shown], better=-sign)
    guards = [("guardrails", [_held(it) for it in shown])] if any(c.guarded for c in shown) else []
    times = multiplier_row(verdict, shown)
    what = unit(snapshot.objective) or "objective"
    heads = ["candidate", f"measured {what}", against(verdict.baseline), ADJUSTED]
    heads += [label for label, _ in (*guards, *times)]
    seeded = f", mean over {max(it.n for it in shown)} seeds" if verdict.seed_scatter else ""
    heads += [f"predicted before{seeded or ', one seed only'} ± 90 %", "inside"]
    rows: list[list[str | Cell]] = []
    for k, it in enumerate(shown):
        strong = it.name == verdict.promoted
        rows.append(
            [
                Cell(it.name + (" ✓" if strong else ""), strong=strong),
                _mean_cell(it),
                Cell(difference_interval(it, 4, verdict.baseline), strip=drawn[k]),
                p_value(it),
                *(cells[k] for _, cells in guards),
                *(_two_lines(cells[k]) for _, cells in times),
                interval(it.predicted, 4),
                "–" if it.inside is None else "yes" if it.inside else "no",
            ]
        )
    note = (
        f"✓ selected. {mixtures_note(verdict, snapshot.objective)} The line: the 90 % interval of "
        "the difference; the thin upright: no difference. Adjusted p-value: one-sided, adjusted "
        f"for the number of candidates. {gate_level(verdict)}"
    )
    if times:
        note += " Times the tokens: how long the baseline would have to train for the same value."
    return [Table(heads, rows, note)]


def _measured_only(snapshot: Snapshot, columns: Sequence[Column]) -> list[Table]:
    sign = snapshot.objective.sign
    shown = [c.measured.turned(sign) for c in columns if c.measured is not None]
    what = unit(snapshot.objective) or "objective"
    rows = [(it.name, _spread(it)) for it in shown]
    note = "Of the search's own seed: the best of many looks better than it is (selection bias)."
    return [Table(("mixture", f"measured {what} (sd, n)"), rows, note)] if rows else []


def _two_lines(text: str) -> Cell:
    """What stands in brackets in a line of its own."""
    first, _, rest = text.partition(" (")
    return Cell(first, rest.removesuffix(")"))


def _held(candidate: Candidate) -> str:
    """How many guardrails hold, and which do not."""
    if not candidate.guarded:
        return "–"
    broken = ", ".join(it.metric for it in candidate.broken)
    if broken:
        return f"✗ {broken}"
    return f"{len(candidate.guarded)} of {len(candidate.guarded)} hold"


def _mean_cell(candidate: Candidate) -> Cell:
    if candidate.mean is None:
        return Cell("–")
    spread = "" if candidate.std is None else f"sd over seeds {candidate.std:.4f}, "
    return Cell(f"{candidate.mean:.4f}", f"{spread}n = {candidate.n}")


def _spread(candidate: Candidate) -> str:
    if candidate.mean is None:
        return "–"
    spread = "" if candidate.std is None else f"sd {candidate.std:.4f}, "
    return f"{candidate.mean:.4f} ({spread}n = {candidate.n})"


def _ends(it: Candidate, baseline: str) -> tuple[float, float, float] | None:
    low, mid, high = it.difference_low, it.difference, it.difference_high
    if it.name == baseline or low is None or mid is None or high is None:
        return None
    return low, mid, high


def metric_table(snapshot: Snapshot, metrics: Sequence[Measured]) -> list[Table]:
    """A row per metric: the baseline's mean, and every candidate's difference with its interval."""
    verdict = snapshot.verdict
    if verdict is None or not metrics:
        return []
    order = [c.name for c in verdict.candidates if c.name != verdict.baseline]
    order.sort(key=lambda name: name != verdict.promoted)
    guarded = any(m.allowed is not None for m in metrics)
    heads = ["metric", f"{verdict.baseline}, mean"]
    heads += ["guardrail: worse by at most"] if guarded else []
    heads += [f"{name}, difference ± 90 %" for name in order]
    rows: list[list[str | Cell]] = []
    for m in metrics:
        cells = [_difference_cell(m, m.differences.get(name)) for name in order]
        allowed = ["–" if m.allowed is None else f"{m.allowed:.4f}"] if guarded else []
        name = Cell(m.metric, below="objective" if m.weighed else "", strong=m.weighed)
        rows.append([name, f"{m.baseline:.4f}", *allowed, *cells])
    note = (
        "Means over the selection's fresh seeds. Differences to the baseline over equal seeds, "
        "each metric by itself. Blue: shown better; orange: shown worse (the 90 % interval lies on "
        "one side of 0); grey: not told apart."
    )
    chosen = 2 + guarded if verdict.improved else -1
    return [Table(heads, rows, note, chosen=chosen)]


def _difference_cell(metric: Measured, it: TradeOff | None) -> Cell:
    if it is None or it.difference is None:
        return Cell("–")
    share = ""
    if metric.baseline:
        share = f"{signed(100 * it.difference / abs(metric.baseline), 1)} %"
    if it.low is None or it.high is None:
        return Cell(signed(it.difference), below=share)
    better = 1 if it.higher else -1
    (drawn,) = strips([(it.low, it.difference, it.high)], better=better)
    text = f"{signed(it.difference)} ± {(it.high - it.low) / 2:.4f}"
    return Cell(text, below=share, strip=drawn)


def effect_table(
    effects: Effects | None, higher: Iterable[str] = (), names: Sequence[str] | None = None
) -> list[Table]:
    """Domain x metric: the change that 5 points more of a domain bring, with its interval.

    Args:
        effects: the changes; None gives no table.
        higher: metrics whose higher values are better.
        names: of the metrics, if they are to be shown by other names.
    """
    if effects is None:
        return []
    up = set(higher)
    sign = np.array([-1.0 if m in up else 1.0 for m in effects.metrics])
    half = NORMAL_90 * effects.std
    resolved = np.abs(effects.change) > half
    most = np.where(resolved, np.abs(effects.change), 0.0).max(axis=0)
    tone = -effects.change * sign / np.where(most > 0, most, 1.0) * resolved
    order = np.argsort(sign[-1] * effects.change[:, -1], kind="stable")
    shown = [*names, effects.metrics[-1]] if names is not None else list(effects.metrics)
    keep = _columns(effects)
    rows: list[list[str | Cell]] = []
    for i in order.tolist():
        cells: list[str | Cell] = [effects.domains[i]]
        for j in keep:
            change, reach = float(effects.change[i, j]), float(half[i, j])
            signed_change = f"{change:+.4g}".replace("-", "−")
            about = f"{effects.metrics[j]}: {signed_change} ± {reach:.2g}"
            below = f"± {_short(reach, plain=True)}"
            colour = float(tone[i, j]) if resolved[i, j] else None
            cells.append(Cell(_short(change), below, key=change, tone=colour, title=about))
        rows.append(cells)
    points = 100 * POINTS
    note = (
        f"Change of a metric where a domain gets {points:g} points more and all others less in "
        "proportion, as the surrogate predicts it at the baseline mixture, ± half its 90 % "
        "interval. Blue: better; orange: worse; no colour: the interval holds 0. A domain's weight "
        "never changes alone, so this is no cause."
    )
    heads = ("domain", *(shown[j] for j in keep))
    return [Table(heads, rows, note, narrow=len(keep) > 9)]


def _columns(effects: Effects) -> list[int]:
    """Columns to show, the objective first; it is left out where it is one metric."""
    last = len(effects.metrics) - 1
    same = any(np.allclose(effects.change[:, j], effects.change[:, last]) for j in range(last))
    return [*([] if same else [last]), *range(last)]


def _short(value: float, *, plain: bool = False) -> str:
    digits = max(0, min(4, 2 - math.floor(math.log10(abs(value))))) if value else 3
    digits = min(digits, 4)
    return f"{value:.{digits}f}" if plain else signed(value, digits)


def bill_table(trials: Sequence[Trial], promotion: Promotion | None) -> list[Table]:
    """What was spent: a row per role of trials, then per stage of the promotion, then all."""
    rows: list[tuple[str, ...]] = []
    total = Cost()
    for role in Role:
        own = [t for t in trials if t.spec.role is role]
        if not own:
            continue
        cost = Cost()
        for t in own:
            cost = cost.plus(t.result.cost) if t.result is not None else cost
        total = total.plus(cost)
        states = {s: sum(t.state is s for t in own) for s in State}
        ended = ", ".join(f"{n} {s}" for s, n in states.items() if n)
        rows.append((f"{role} trials", ended, *_costs(cost)))
    rows.append(("all trials", f"{len(trials)} trainings", *_costs(total)))
    if promotion is not None and promotion.trained:
        cells = (count(promotion.tokens), duration(promotion.device_seconds), "–")
        rows.append(("promotion", f"{len(promotion.stages)} trainings", *cells))
    return [
        Table(
            ("what", "trainings", "tokens", "device time", "FLOPs"),
            rows,
            "Device time counts every attempt, tokens only what was kept. Pruned trials cost what "
            "they were trained for.",
        )
    ]


def _costs(cost: Cost) -> tuple[str, str, str]:
    return (
        count(cost.tokens),
        duration(cost.device_seconds),
        flops(cost.flops).removesuffix(" FLOPs"),
    )


def trial_table(snapshot: Snapshot) -> list[Table]:
    """All trials, sortable: objective, weights and the metrics that matter."""
    trials = sorted(snapshot.trials, key=lambda t: t.number)
    if not trials:
        return []
    domains = list(dict.fromkeys(d for t in trials for d in t.spec.mixture.domains))
    weighed = list(snapshot.objective.metrics)
    guarded = [g.metric for g in snapshot.study.guarded()]
    metrics = [m for m in dict.fromkeys([*weighed, *guarded])][:MOST_VALUES]
    if len(weighed) == 1:
        metrics = [m for m in metrics if m not in weighed]  # the objective says the same
    shown = domains[:MOST_WEIGHTS]
    heads = ["trial", "role", "round", "seed", "state", "objective", *shown, *metrics]
    heads += ["tokens", "device time"]
    rows = [_trial_row(snapshot, t, shown, metrics) for t in trials]
    left = [
        f"{len(names) - len(kept)} further {what}"
        for what, names, kept in (("domains", domains, shown),)
        if len(names) > len(kept)
    ]
    note = "A click on a column's name sorts by it. "
    note += (
        f"{'; '.join(left)} and all metrics: `mixopt trials`."
        if left
        else "All metrics: `mixopt trials`."
    )
    return [Table(heads, rows, note, sortable=True)]


def _trial_row(
    snapshot: Snapshot, trial: Trial, domains: Sequence[str], metrics: Sequence[str]
) -> list[str | Cell]:
    value = snapshot.objective.shown.of_trial(trial)
    weights: Mapping[str, float] = trial.spec.mixture.as_dict()
    cost = trial.result.cost if trial.result is not None else None
    role = f"{trial.spec.role}: {trial.spec.candidate}" if trial.spec.candidate else trial.spec.role
    return [
        str(trial.number),
        str(role),
        str(trial.spec.round),
        str(trial.spec.seed),
        str(trial.state),
        "–" if value is None else f"{value:.4f}",
        *(_weight(weights.get(d, 0.0)) for d in domains),
        *(_value(trial.metrics.get(m)) for m in metrics),
        Cell("–") if cost is None else Cell(count(cost.tokens), key=cost.tokens),
        Cell("–")
        if cost is None
        else Cell(duration(cost.device_seconds), key=round(cost.device_seconds, 1)),
    ]


def _weight(weight: float) -> Cell:
    return Cell(f"{weight:.1%}", key=round(weight, 6))


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
