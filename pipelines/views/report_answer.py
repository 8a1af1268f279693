"""The first screen of a report: the answer in three sentences, and the five questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixopt.core.formatting import count, signed
from mixopt.core.trials import State
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.multiplier_words import multiplier_short
from mixopt.pipelines.views.page.parts import Answer
from mixopt.pipelines.views.wording import better, gate_level, headline, p_value, unit
from mixopt.selection.results import Candidate
from mixopt.study.measured import Measured
from mixopt.study.queries import best_trial, search_trials
from mixopt.study.results import Promotion, Verdict
from mixopt.study.snapshot import Snapshot

NAMED = 3  # domains or metrics that a sentence names


def lead(snapshot: Snapshot, metrics: Sequence[Measured]) -> list[str]:
    """What was found, and what it costs elsewhere: two sentences."""
    verdict = snapshot.verdict
    first = headline(snapshot.trials, snapshot.objective, verdict, snapshot.study.search.repeats)
    if verdict is None or not verdict.improved:
        return [first]
    if all(metric.weighed for metric in metrics):
        return [first, f"{_nothing_else(snapshot)[0]} beyond the objective."]
    return [first, cost_sentence(verdict, metrics)]


def decision(snapshot: Snapshot) -> str:
    """What to do with the mixture, as a sentence."""
    verdict, promotion = snapshot.verdict, snapshot.promotion
    if verdict is None:
        return "No decision yet: nothing has been compared with fresh seeds."
    name = verdict.promoted
    if not verdict.improved:
        return f"Decision: stay with the {name} mixture; nothing else is shown to be better."
    transfer = snapshot.transfer
    if transfer is not None and not transfer.kept and transfer.basis not in snapshot.overruled:
        return "Decision: do not promote; the order of the mixtures is lost at the larger size."
    if promotion is not None and promotion.mixture.same_as(verdict.mixture):
        done = "trained on it" if promotion.trained else "upcycled"
        return f"Decision: train on the {name} mixture; a promoted model is {done} already."
    return f"Decision: train on the {name} mixture."


def five_answers(snapshot: Snapshot, metrics: Sequence[Measured]) -> list[Answer]:
    """What won, by how much and how surely, at what cost, against what, and what comes next."""
    return [
        _what_won(snapshot),
        _by_how_much(snapshot),
        _at_what_cost(snapshot, metrics),
        _against_what(snapshot),
        _what_next(snapshot),
    ]


def _what_won(snapshot: Snapshot) -> Answer:
    question, verdict = "What won?", snapshot.verdict
    if verdict is None:
        best = best_trial(snapshot.trials, snapshot.objective)
        if best is None:
            return Answer(question, "Nothing yet", "No trial of the search is complete.")
        weights = weights_against(best.spec.mixture.as_dict(), {}, "")
        value = snapshot.objective.shown.value(best.metrics)
        return Answer(
            question,
            "Nothing yet",
            f"Best observed so far: trial {best.number} with {value:.4f}, one seed: {weights}.",
        )
    own = verdict.mixture.as_dict()
    if verdict.promoted == verdict.baseline:
        return Answer(question, f"The {verdict.baseline} mixture stays", _list(own, {}) + ".")
    base = verdict.candidates[0].mixture.as_dict()
    return Answer(
        question,
        f"The {verdict.promoted} mixture",
        weights_against(own, base, verdict.baseline) + ".",
    )


def weights_against(own: dict[str, float], base: dict[str, float], name: str) -> str:
    """The largest weights, each with the baseline's in brackets."""
    text = _list(own, base)
    return text + (f" (in brackets: {name})" if base else "")


def _list(own: dict[str, float], base: dict[str, float]) -> str:
    order = sorted(own.items(), key=lambda item: -item[1])
    shown = [
        f"{domain} {weight:.1%}" + (f" ({base.get(domain, 0.0):.1%})" if base else "")
        for domain, weight in order[:6]
        if weight >= 0.0005
    ]
    left = len(order) - len(shown)
    return ", ".join(shown) + (f" and {left} more" if left else "")


def _by_how_much(snapshot: Snapshot) -> Answer:
    question, verdict = "By how much, and how surely?", snapshot.verdict
    if verdict is None:
        return Answer(
            question,
            "Not known",
            "Candidates are compared with the baseline by fresh seeds: "
            f"`{command('select', snapshot.study.path)}` after the search.",
        )
    verdict = verdict.turned(snapshot.objective.sign)
    shown = verdict.winner if verdict.improved else _closest(verdict)
    if shown is None or shown.difference is None:
        return Answer(question, "Nothing was shown to be better", verdict.reason + ".")
    what = unit(snapshot.objective)
    share = _share(snapshot, shown.difference, verdict.candidates[0].mean)
    short = f"{signed(shown.difference)}{f' {what}' if what else ''}{share}"
    if not verdict.improved:
        short = f"Not shown: {shown.name} differs by {short}"
    parts = []
    if shown.difference_low is not None and shown.difference_high is not None:
        parts.append(
            f"90 % interval {signed(shown.difference_low)} to {signed(shown.difference_high)}"
        )
    if shown.adjusted_p is not None:
        parts.append(f"adjusted p-value {p_value(shown)}")
    times = multiplier_short(snapshot.verdict) if verdict.improved else ""
    detail = f"{', '.join(parts)}. {gate_level(verdict)}{times}"
    return Answer(question, short, f"{detail[:1].upper()}{detail[1:]}")


def _closest(verdict: Verdict) -> Candidate | None:
    """Of the candidates that did not pass, the one with the least p-value."""
    tested = [c for c in verdict.candidates[1:] if c.adjusted_p is not None]
    return min(tested, key=lambda c: c.adjusted_p or 0.0, default=None)


def _share(snapshot: Snapshot, difference: float, baseline: float | None) -> str:
    """The difference as a share of the baseline; empty where metrics point both ways."""
    signs = {weight > 0 for weight in snapshot.objective.weights.values()}
    if not baseline or len(signs) > 1:
        return ""
    return f" ({signed(100 * difference / abs(baseline), 1)} %)"


def cost_sentence(verdict: Verdict, metrics: Sequence[Measured]) -> str:
    """What the selected mixture makes worse, beside what it makes better."""
    others = [m for m in metrics if not m.weighed]
    worse, gained, level = _sides(verdict, others)
    text = f"Of {len(others)} other metrics it makes {len(worse)} worse"
    text += f" ({_most(verdict, worse)})" if worse else ""
    text += f" and {len(gained)} better"
    text += f"; {len(level)} cannot be told apart" if level else ""
    guarded = verdict.winner.guarded
    if guarded:
        held = sum(it.holds for it in guarded)
        text += f"; {held} of {len(guarded)} guardrails hold"
    return f"{text}."


def _sides(
    verdict: Verdict, metrics: Sequence[Measured]
) -> tuple[list[Measured], list[Measured], list[Measured]]:
    """Metrics that are shown worse, shown better, and neither, on the selected mixture."""
    name = verdict.promoted
    worse = [m for m in metrics if name in m.differences and m.differences[name].worse]
    gained = [m for m in metrics if name in m.differences and m.differences[name].better]
    return worse, gained, [m for m in metrics if m not in worse and m not in gained]


def _most(verdict: Verdict, metrics: Sequence[Measured]) -> str:
    """The largest changes by share of the baseline's value."""
    order = sorted(metrics, key=lambda m: -abs(_change(verdict, m)))
    shown = [f"{m.metric} {signed(100 * _change(verdict, m), 1)} %" for m in order[:NAMED]]
    more = len(order) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _change(verdict: Verdict, metric: Measured) -> float:
    difference = metric.differences[verdict.promoted].difference or 0.0
    return difference / abs(metric.baseline) if metric.baseline else 0.0


def _at_what_cost(snapshot: Snapshot, metrics: Sequence[Measured]) -> Answer:
    what = "domains" if snapshot.study.trainer is None else "metrics"
    question, verdict = f"What does it cost in other {what}?", snapshot.verdict
    if verdict is None:
        return Answer(question, "Not known", "Nothing is selected yet.")
    if verdict.promoted == verdict.baseline:
        return Answer(question, "Nothing", "The baseline stays as it is.")
    others = [m for m in metrics if not m.weighed]
    if not others:
        return Answer(question, *_nothing_else(snapshot))
    worse, gained, level = _sides(verdict, others)
    short = f"{len(worse)} of {len(others)} get worse" if worse else "None is shown to get worse"
    parts = []
    if worse:
        parts.append(f"Worse: {_most(verdict, worse)}")
    if gained:
        parts.append(f"better: {_most(verdict, gained)}")
    if level:
        parts.append(f"not told apart: {', '.join(m.metric for m in level[:NAMED])}")
    for it in verdict.winner.guarded:
        if it.worse is not None:
            holds = "holds" if it.holds else "is not shown to hold"
            parts.append(
                f"guardrail {it.metric} {holds} (worse by {signed(it.worse)} of {it.allowed:.4f} "
                "allowed)"
            )
    detail = "; ".join(parts)
    return Answer(question, short, f"{detail[:1].upper()}{detail[1:]}.")


def _nothing_else(snapshot: Snapshot) -> tuple[str, str]:
    """That no metric but the objective's is compared, in short, and why."""
    weighed = set(snapshot.objective.metrics)
    named = {name for t in snapshot.trials for name in t.metrics} - weighed
    if not named:
        return "Nothing was measured", "The trials have no metric beyond the objective."
    return "Nothing was compared", (
        f"Which values of {', '.join(sorted(named)[:NAMED])} are better is not known: name what "
        "must not get worse under `guardrails`, and those better higher under `metrics`."
    )


def _against_what(snapshot: Snapshot) -> Answer:
    question, verdict = "What was it compared with?", snapshot.verdict
    searched = {t.spec.mixture.key for t in search_trials(snapshot.trials) if t.complete}
    tried = f"The search had tried {len(searched)} mixtures"
    rounds = len(snapshot.rounds)
    if rounds:
        by = ", ".join(dict.fromkeys(r.proposer for r in snapshot.rounds))
        tried += f", in {rounds} round{'s' * (rounds > 1)} by {by} after the initial design"
    if verdict is None:
        return Answer(question, f"Nothing yet; the baseline is {snapshot.baseline}", f"{tried}.")
    others = [
        c.name for c in verdict.candidates if c.name not in (verdict.promoted, verdict.baseline)
    ]
    if verdict.promoted == verdict.baseline:
        short = f"The other candidates: {', '.join(others)}" if others else "No other mixture"
    else:
        beside = f", beside {', '.join(others)}" if others else ""
        short = f"The {verdict.baseline} mixture{beside}"
    tokens = count(snapshot.study.proxy.tokens)
    seeds = max(c.n for c in verdict.candidates)
    return Answer(
        question,
        short,
        f"Each trained {seeds} times with fresh seeds for {tokens} tokens, "
        f"{better(snapshot.objective)}. {tried}.",
    )


def _what_next(snapshot: Snapshot) -> Answer:
    question, path, verdict = "What to run next?", snapshot.study.path, snapshot.verdict
    goes_on = "ask" if snapshot.study.elsewhere else "run"
    if verdict is None:
        left = sum(not t.ended for t in snapshot.trials)
        why = f"{left} trials have not ended." if left else "It goes on to the verdict."
        if not any(t.state is State.COMPLETE for t in snapshot.trials):
            why = "Nothing is complete yet."
        return Answer(question, "Go on with the study:", why, command(goes_on, path))
    if not verdict.improved:
        what = (
            "Plan more seeds (select.seeds) or rounds (search.rounds), then:"
            if verdict.look < verdict.looks
            else "Export the mixture that stays:"
        )
        words = (goes_on, path) if verdict.look < verdict.looks else None
        line = command(*words) if words else command("export", path, "--mixture", "json")
        return Answer(question, what, f"{verdict.reason[:1].upper()}{verdict.reason[1:]}.", line)
    promotion = snapshot.promotion
    if promotion is not None and promotion.mixture.same_as(verdict.mixture):
        return Answer(
            question,
            "Train at full size on the mixture:",
            f"The promoted model is there already: {_promoted_model(promotion, path)}.",
            command("export", path, "--mixture", "json"),
        )
    if snapshot.study.promote is not None:
        return Answer(
            question,
            "Promote it:",
            f"Or train it elsewhere: `{command('export', path, '--mixture', 'json')}`.",
            command("ask" if snapshot.study.promote.elsewhere else "promote", path),
        )
    return Answer(
        question, "Train on the mixture:", "", command("export", path, "--mixture", "json")
    )


def _promoted_model(promotion: Promotion, path: Path) -> str:
    """How the promoted model is had."""
    if promotion.checkpoint:
        return f"its checkpoint is {promotion.checkpoint}"
    if promotion.upcycled:
        return f"`{command('export', path, '--model', 'moe')}` writes it for transformers"
    return f"`{command('export', path, '--model', 'model')}` copies it as its trainer wrote it"
