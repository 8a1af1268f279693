"""`replay.html`: what each proposer would have found, in the frame of a study's report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from mixopt import __version__
from mixopt.core.formatting import plus_minus, signed
from mixopt.core.mixture import Mixture
from mixopt.offline.fidelity_words import fidelity_text
from mixopt.offline.replay import Replay
from mixopt.offline.replay_summary import Summary
from mixopt.pipelines.offline.fit_report import shortened
from mixopt.pipelines.offline.replayed import RECOMMENDED, TRAINED, Replayed, regret_words
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.page.parts import Answer, Cell, Figure, Page, Section, Table, strips
from mixopt.pipelines.views.page.render import render as render_page
from mixopt.pipelines.views.wording import better, formula, weighed
from mixopt.plots.replay import regret_by_cost

RANDOM = "random"  # what proposers are compared with, where it was replayed
NAMED = 6  # domains that a sentence names
Interval = tuple[float, float, float]  # low, mean, high


def render(done: Replayed, name: str) -> str:
    """The page; `name` is that of its folder."""
    return render_page(page_of(done, name))


def page_of(done: Replayed, name: str) -> Page:
    """What the page says."""
    ranked = by_regret(done)
    first, reference = ranked[0], reference_of(done)
    gap = None if first.proposer == reference else difference(done, first.proposer, reference)
    return Page(
        name=name,
        kind="mixopt replay",
        about=_about(done),
        lead=[_headline(done, first)],
        decision=_decision(first, reference, gap),
        answers=_answers(done, ranked, reference, gap),
        sections=[
            Section(
                "Proposers",
                tables=[_proposer_table(done, ranked, reference)],
                source="replay.json, the summary of each proposer.",
            ),
            Section("Regret by cost", figures=[_figure(done)], source="curves.csv."),
            Section("Mixtures", tables=[_mixture_table(done, ranked)], source="replay.json."),
        ],
        notes=done.notes,
        commands=[
            (
                "a surrogate of the same runs",
                command("fit", "--ratios", "R.csv", "--metrics", "M.csv", "--out", "fit"),
            ),
            ("the next mixtures to train", _next_command(first)),
        ],
        settings_title="Settings of this replay (replay.json)",
        settings=_settings(done),
    )


def by_regret(done: Replayed) -> list[Summary]:
    """The proposers, the one whose recommended mixtures are best first; unknown regrets last."""
    return sorted(done.summaries(), key=lambda it: (math.isnan(it.recommended), it.recommended))


def reference_of(done: Replayed) -> str:
    """What the others are compared with: `random`, else the proposer that was named first."""
    return RANDOM if RANDOM in done.replays else next(iter(done.replays))


def difference(done: Replayed, one: str, other: str) -> Interval | None:
    """Regret of `one`'s recommended mixtures minus that of `other`'s: 90 % interval, over seeds.

    Seeds are paired: equal ones begin with the same initial design. None from fewer than two seeds,
    or where one recommends nothing.
    """
    regrets = [np.array([r.points[-1].recommended for r in done.replays[n]]) for n in (one, other)]
    gaps = regrets[0] - regrets[1]
    if len(gaps) < 2 or not np.isfinite(gaps).all():
        return None
    mean, half = float(gaps.mean()), half_width(float(gaps.std(ddof=1)), len(gaps))
    return mean - half, mean, mean + half


def half_width(std: float, seeds: int) -> float:
    """Half the 90 % interval of a mean over so many seeds, by Student's t; NaN of one."""
    return float(stdtrit(seeds - 1, 0.95)) * std / math.sqrt(seeds) if seeds > 1 else math.nan


def _of_mean(value: float, error: float, seeds: int) -> str:
    """A mean over seeds with half its 90 % interval, of its standard error."""
    if not math.isfinite(value):
        return "–"
    if not math.isfinite(error):
        return f"{value:.4f}"
    return plus_minus(value, half_width(error * math.sqrt(seeds), seeds))


def _about(done: Replayed) -> str:
    pool = done.pool
    natural = "; ".join(f"{d} {w:.1%}" for d, w in _largest(pool.space.reference))
    size = "" if _unsized(done) else f" Target: {fidelity_text(pool.target)}."
    return (
        f"Objective: {shortened(weighed(pool.objective.shown.weights))}, {better(pool.objective)}. "
        f"Natural mixture (the mean of the runs): {natural}. {len(pool.specs)} mixtures, "
        f"{len(pool.domains)} domains.{size}"
    )


def _unsized(done: Replayed) -> bool:
    return (done.pool.target.params, done.pool.target.tokens) == (1, 1)


def _largest(mixture: Mixture) -> list[tuple[str, float]]:
    return sorted(mixture.as_dict().items(), key=lambda item: -item[1])[:NAMED]


def _headline(done: Replayed, first: Summary) -> str:
    if math.isnan(first.recommended):
        return f"Within a budget of {done.budget} no proposer recommends a mixture in every search."
    regret = _of_mean(first.recommended, first.recommended_error, first.seeds)
    side = "below" if done.pool.objective.sign == -1 else "above"
    return (
        f"Within a budget of {done.budget} {first.proposer} recommends mixtures whose objective "
        f"is on average {regret} {side} that of the best of {len(done.pool.targets)} (± half the "
        "90 % interval over seeds)."
    )


def _decision(first: Summary, reference: str, gap: Interval | None) -> str:
    if gap is not None and gap[2] < 0:
        return f"Decision: let {first.proposer} propose the next mixtures of runs like these."
    if first.proposer == reference:
        return f"Decision: nothing does better than {reference} here; stay with it."
    return (
        f"Decision: {first.proposer} is not told apart from {reference}; replay more seeds, or a "
        "larger budget."
    )


def _answers(
    done: Replayed, ranked: Sequence[Summary], reference: str, gap: Interval | None
) -> list[Answer]:
    """The five questions, of proposers."""
    pool, first = done.pool, ranked[0]
    surely = "One seed has no interval."
    by_how_much = "–"
    if first.proposer == reference:
        by_how_much, surely = (
            "Nothing is better",
            f"{reference} is what the others are set against.",
        )
    elif gap is not None:
        by_how_much = (
            f"{signed(gap[1])} regret against {reference} (90 % interval {signed(gap[0])} to "
            f"{signed(gap[2])})"
        )
        surely = (
            f"Over {first.seeds} seeds, paired; not adjusted for the choice among {len(ranked)} "
            "proposers."
        )
    spread = float(np.std(pool.values[pool.targets]))
    others = [it.proposer for it in ranked if it is not first]
    return [
        Answer(
            "What won?",
            first.proposer if not math.isnan(first.recommended) else "No proposer",
            "Its recommended mixtures have the lowest mean regret at the budget.",
        ),
        Answer("By how much, and how surely?", by_how_much, surely),
        Answer(
            "What does it cost?",
            f"Spent: {done.cost(first.cost)}",
            f"It trained the best mixture in {first.found:.0%} of its searches; cost until then: "
            f"{until(first)}.",
        ),
        Answer(
            "What was it compared with?",
            shortened(", ".join(others), 60) or "No other proposer",
            f"All search the same {len(pool.targets)} mixtures; their objective has a standard "
            f"deviation of {spread:.4f}, its best is {done.best:.4f}.",
        ),
        Answer(
            "What to run next?",
            "The next mixtures to train:",
            "From a fit of the same runs.",
            _next_command(first),
        ),
    ]


def _next_command(first: Summary) -> str:
    return command("propose", "fit", "--proposer", first.proposer, "-n", 16, "--out", "next.csv")


def until(row: Summary) -> str:
    """Mean cost until the best mixture was trained, its median, or a dash."""
    if row.until_best is not None:
        error = math.nan if row.until_best_error is None else row.until_best_error
        if not math.isfinite(error):
            return f"{row.until_best:.1f}"
        half = half_width(error * math.sqrt(row.seeds), row.seeds)
        return plus_minus(row.until_best, half, 1)
    if row.until_best_median is not None:
        return f"median {row.until_best_median:.4g}"
    return "–"


def _proposer_table(done: Replayed, ranked: Sequence[Summary], reference: str) -> Table:
    gaps = [
        None if it.proposer == reference else difference(done, it.proposer, reference)
        for it in ranked
    ]
    rows: list[list[str | Cell]] = []
    for it, gap, strip in zip(ranked, gaps, strips(gaps), strict=True):
        shown = "–" if gap is None else signed(gap[1])
        below = "" if gap is None else f"{signed(gap[0])} to {signed(gap[2])}"
        rows.append(
            [
                Cell(it.proposer, strong=it is ranked[0]),
                _of_mean(it.recommended, it.recommended_error, it.seeds),
                Cell(shown, below=below, strip=strip),
                _of_mean(it.trained, it.trained_error, it.seeds),
                f"{it.found:.0%}",
                until(it),
                f"{it.cost:.4g}",
                str(it.seeds),
            ]
        )
    head = (
        "proposer",
        "regret, recommended",
        f"difference from {reference}",
        "regret, best trained",
        "best found",
        "cost until found",
        "cost spent",
        "seeds",
    )
    caption = (
        f"{regret_words(len(done.pool.targets))}; lower is better, mean ± half the 90 % interval "
        "over seeds. Difference of the recommended mixtures' regrets with its 90 % interval; equal "
        "seeds begin with the same initial design. Best found: searches that trained the best "
        f"mixture. Unit of costs: {done.cost_unit}."
    )
    return Table(head, rows, caption)


def _figure(done: Replayed) -> Figure:
    plot = regret_by_cost(done.curves(RECOMMENDED), done.curves(TRAINED), done.cost_unit)
    return Figure(
        plot,
        "A line is the median over seeds, the band goes from the first to the third quartile. Left "
        "the mixture that the surrogate recommends after so much cost, right the best that was "
        "trained until then.",
        "curves.csv",
        wide=True,
    )


def recommended_most(replays: Sequence[Replay]) -> tuple[int, int] | None:
    """The candidate that most searches recommend at their end, and how many do."""
    found = Counter(r.recommended for r in replays if r.recommended is not None)
    return found.most_common(1)[0] if found else None


def _mixture_table(done: Replayed, ranked: Sequence[Summary]) -> Table:
    """Weights of the best mixture, the natural one, and what each proposer recommends most."""
    pool = done.pool
    columns = [("best of the pool", pool.specs[pool.best].mixture)]
    columns.append(("natural", pool.space.reference))
    for it in ranked:
        found = recommended_most(done.replays[it.proposer])
        if found is not None:
            title = f"{it.proposer}, in {found[1]} of {it.seeds} searches"
            columns.append((title, pool.specs[found[0]].mixture))
    order = np.argsort(-columns[0][1].array, kind="stable").tolist()
    rows: list[list[str | Cell]] = [
        [
            pool.domains[j],
            *(Cell(f"{mix.weights[j]:.1%}", bar=mix.weights[j]) for _, mix in columns),
        ]
        for j in order
    ]
    caption = "Of each proposer, the mixture that most of its searches recommend at their end."
    return Table(("domain", *(title for title, _ in columns)), rows, caption, chosen=1)


def _settings(done: Replayed) -> list[tuple[str, str]]:
    pool, plan = done.pool, done.plan
    seeds = sorted({replay.seed for found in done.replays.values() for replay in found})
    return [
        ("mixopt", __version__),
        ("surrogate", done.surrogate),
        ("target", fidelity_text(pool.target)),
        ("budget", done.budget),
        ("initial", "a quarter of the budget" if plan.initial is None else str(plan.initial)),
        ("free", str(plan.free)),
        ("batch", str(plan.batch)),
        ("every", str(plan.every)),
        ("seeds", f"{seeds[0]} to {seeds[-1]}"),
        ("objective", f"{formula(pool.objective)}, {better(pool.objective)}"),
    ]
