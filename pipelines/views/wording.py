"""What a study found, in words, the same on every page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mixopt.core.formatting import count, duration, signed
from mixopt.core.objective import Objective
from mixopt.core.trials import Cost, Outcome, State, Trial
from mixopt.pipelines.views.seed_words import scattered, unrepeated
from mixopt.pipelines.views.trade_offs import trade_rows
from mixopt.pipelines.views.verbatim import verbatim
from mixopt.selection.candidates import NATURAL
from mixopt.selection.results import Candidate, Predicted
from mixopt.study.queries import best_trial
from mixopt.study.replaced import outcome_of
from mixopt.study.results import Promotion, Verdict
from mixopt.surrogates.noise import Forecast, seed_scatter_of

ADJUSTED = "adjusted p-value"  # of a row: one-sided, adjusted for the number of candidates
OVER_SEEDS = "± sd over seeds"  # of a row of measured means
PROXY_NOTE = (
    "Proxy: predicted for one run on this mixture with a fresh seed, ± half its 90 % interval. It "
    "is another model at another budget, not a prediction of the promoted one."
)
UNTRAINED = (
    "Upcycled, not trained (promote.train: false). Its routers are new: train it on the mixture "
    "before you use it."
)


def described(outcome: Outcome) -> str:
    """What became of a training in a few words: its metrics, or its failure."""
    if outcome.result is None:
        return str(outcome.failure or State.FAILED)
    return ", ".join(f"{name} {value:g}" for name, value in outcome.result.metrics.items())


def correction(trial: Trial) -> str:
    """What was recorded of `trial`, which was corrected, and what counts now."""
    values = [*map(described, trial.replaced), described(outcome_of(trial))]
    return f"trial {trial.number} corrected: {' → '.join(values)}"


def cost_sentence(cost: Cost) -> str:
    """What was spent, in tokens, device time and training FLOPs.

    >>> cost_sentence(Cost(160_000, 21.2, 2.69e11))
    '160k tokens, 21 s of device time, 269B FLOPs.'
    """
    return (
        f"{count(cost.tokens)} tokens, {duration(cost.device_seconds)} of device time, "
        f"{count(cost.flops)} FLOPs."
    )


def formula(objective: Objective) -> str:
    """The objective as people read it, as a sum.

    >>> formula(Objective({"loss": 1, "accuracy/arc": -1}))
    '0.5 × bpb/loss − 0.5 × accuracy/arc'
    """
    first, *others = objective.shown.weights.items()
    text = f"{'−' if first[1] < 0 else ''}{abs(first[1]):.3g} × {first[0]}"
    for name, weight in others:
        text += f" {'−' if weight < 0 else '+'} {abs(weight):.3g} × {name}"
    return text


def unit(objective: Objective) -> str:
    """The unit of the objective: bits per byte, or the name of the only metric that it weighs.

    Empty if it weighs several others.
    """
    if all(name.startswith("bpb/") and w > 0 for name, w in objective.weights.items()):
        return "bits per byte"
    if len(objective.weights) > 1:
        return ""
    return objective.metrics[0]


def better(objective: Objective) -> str:
    """`higher is better` or `lower is better`, of the values that people read."""
    return f"{'higher' if objective.sign == -1 else 'lower'} is better"


def weighed(weights: Mapping[str, float]) -> str:
    """The weights of an objective, as a list; a negative one is of a metric better higher.

    >>> weighed({"accuracy/arc": -0.5, "loss": 0.5})
    'accuracy/arc 0.5 (higher is better), loss 0.5'
    """
    return ", ".join(
        f"{name} {abs(weight):.3g}{' (higher is better)' if weight < 0 else ''}"
        for name, weight in weights.items()
    )


def headline(
    trials: Sequence[Trial], objective: Objective, verdict: Verdict | None, repeats: int = 0
) -> str:
    """One sentence on where the study stands: the verdict, or the best trial so far.

    Args:
        trials: of the ledger.
        objective: of the study.
        verdict: None before there is one.
        repeats: of the baseline, as many as the study file asks for.
    """
    if verdict is None:
        return _progress(trials, objective, repeats)
    verdict = verdict.turned(objective.sign)
    winner, baseline = verdict.winner, verdict.candidate(verdict.baseline)
    if not verdict.improved or baseline is None or not (winner.mean and baseline.mean):
        reason = verdict.reason.strip().rstrip(".")
        return f"The {verdict.promoted} mixture is selected" + (f": {reason}." if reason else ".")
    gain = baseline.mean - winner.mean
    signs = {weight > 0 for weight in objective.weights.values()}
    share = f"{'−' if gain >= 0 else '+'}{abs(gain) / abs(baseline.mean):.1%}; "
    evidence = _difference(winner, verdict.baseline)
    if winner.adjusted_p is not None:
        evidence.append(f"{ADJUSTED} {p_value(winner)}")
    return (
        f"The {verdict.promoted} mixture is selected: {_mean_sd(winner, unit(objective))} against "
        f"{_mean_sd(baseline)} for the {baseline.name} mixture, at equal tokens over {winner.n} "
        f"fresh seeds ({share if len(signs) == 1 else ''}{'; '.join(evidence)})."
    )


def _mean_sd(candidate: Candidate, unit: str = "") -> str:
    mean = f"{candidate.mean:.4f}{' ' + unit if unit else ''}"
    return mean if candidate.std is None else f"{mean} (sd over seeds {candidate.std:.4f})"


def _difference(candidate: Candidate, baseline: str) -> list[str]:
    """The measured difference to the baseline in a sentence; none for the baseline itself."""
    low, high = candidate.difference_low, candidate.difference_high
    if candidate.difference is None or candidate.name == baseline:
        return []
    sentence = f"difference {candidate.difference:.4f}"
    if low is not None and high is not None:
        sentence += f", 90 % {_between(low, high)}"
    return [sentence.replace("-", "−")]


def against(baseline: str) -> str:
    """The name of a row: the mean difference to the baseline on equal seeds."""
    return f"against {baseline} ± 90 %"


def difference_interval(candidate: Candidate, digits: int, baseline: str = NATURAL) -> str:
    """The difference to the baseline ± half its 90 % interval; a dash for the baseline itself."""
    low, high = candidate.difference_low, candidate.difference_high
    if candidate.difference is None or candidate.name == baseline:
        return "–"
    difference = f"{candidate.difference:+.{digits}f}".replace("-", "−")
    if low is None or high is None:
        return difference
    return f"{difference} ± {(high - low) / 2:.{digits}f}"


def gate_rows(
    candidates: Sequence[Candidate], digits: int, baseline: str = NATURAL
) -> list[tuple[str, list[str]]]:
    """The measures that the gate decides by: a label and a cell per candidate."""
    return [
        (against(baseline), [difference_interval(it, digits, baseline) for it in candidates]),
        (ADJUSTED, [p_value(candidate) for candidate in candidates]),
        *guard_rows(candidates, digits),
        *trade_rows(candidates, digits, baseline),
    ]


def guard_rows(candidates: Sequence[Candidate], digits: int) -> list[tuple[str, list[str]]]:
    """A row per guardrail: how much worse each candidate makes its metric; ✗ where it may not."""
    metrics = dict.fromkeys(it.metric for each in candidates for it in each.guarded)
    return [
        (f"{verbatim(metric)} worse by", [_guard_cell(each, metric, digits) for each in candidates])
        for metric in metrics
    ]


def _guard_cell(candidate: Candidate, metric: str, digits: int) -> str:
    found = next((it for it in candidate.guarded if it.metric == metric), None)
    if found is None:
        return "–"
    if found.worse is None:
        return "✗ not measured"
    worse = f"{found.worse:+.{digits}f}".replace("-", "−")
    return f"{'' if found.holds else '✗ '}{worse} of {found.allowed:.{digits}f}"


def guard_lines(verdict: Verdict, objective: Objective) -> list[str]:
    """What the guardrails cost the recommended mixture, as sentences; none without them."""
    verdict = verdict.turned(objective.sign)
    if verdict.unguarded is None or verdict.unguarded_mean is None:
        return []
    parts = sorted(verdict.unguarded.as_dict().items(), key=lambda item: -item[1])
    weights = ", ".join(f"{d} {w:.1%}" for d, w in parts if w >= 0.005)
    held = ", ".join(
        f"{metric} worse by {signed(worse)} of {allowed:.4f} allowed"
        for metric, (worse, allowed) in verdict.guards.items()
    ).replace("-", "−")
    recommended = verdict.candidate("recommended")
    mean = None if recommended is None else recommended.predicted
    price = ""
    if mean is not None:
        price = f" (predicted objective {verdict.unguarded_mean:.4f} in place of {mean.mean:.4f})"
    return [
        f"Guardrails, as predicted of the recommended mixture: {held}.",
        f"Without guardrails the surrogate would choose {weights}{price}.",
    ]


def selected_weights(verdict: Verdict) -> str:
    """The weights of the selected mixture in a sentence, the largest first."""
    weights = verdict.mixture.as_dict()
    order = sorted(weights, key=weights.__getitem__, reverse=True)
    shown = [f"{name} {weights[name]:.1%}" for name in order if weights[name] >= 0.0005]
    left = len(order) - len(shown)
    rest = f"; under 0.05 % of {left} other{'s' * (left > 1)}" if left else ""
    return f"Weights of the {verdict.promoted} mixture: {', '.join(shown)}{rest}."


def gate_level(verdict: Verdict) -> str:
    """The adjusted p-value at which a candidate passes the gate, and the look."""
    if not verdict.level:
        return f"All {verdict.looks} looks (select.looks) were used up: no candidate could pass."
    at = f" at look {verdict.look} of {verdict.looks}" if verdict.looks > 1 else ""
    return f"A candidate passes the gate at {verdict.level:.3g} or less{at}."


def p_value(candidate: Candidate) -> str:
    """The adjusted p-value of a candidate; a dash where there is none."""
    p = candidate.adjusted_p
    if p is None:
        return "–"
    return "< 0.001" if p < 1e-3 else f"{p:.3f}"


def before_selection(
    predicted: Forecast, objective: Objective, trials: Sequence[Trial] = ()
) -> str:
    """The prediction of the recommended mixture, before anything is run for it.

    Args:
        predicted: of that mixture.
        objective: of the study.
        trials: of its search, which say why the scatter over seeds is not known.
    """
    predicted = replace(predicted, mean=objective.sign * predicted.mean)
    mean, one_seed = _amount(predicted.mean, objective), _between(*predicted.this_seed)
    if predicted.scatter is None:
        why = unrepeated(trials)
        return f"recommended: {mean}, 90 % {one_seed} for the search's seed only; {why}"
    return (
        f"recommended: {mean}, 90 % {_between(*predicted.within())} for the mean over seeds, "
        f"{one_seed} for the search's own; {scattered(predicted.scatter)}"
    )


def calibration(verdict: Verdict | None, objective: Objective) -> str:
    """Whether the mean over fresh seeds lies in the predicted interval; empty if not measured.

    Of the recommended mixture, or of the promoted one where that is no candidate of its own.
    """
    if verdict is None:
        return ""
    verdict = verdict.turned(objective.sign)
    candidate = verdict.candidate("recommended") or verdict.winner
    predicted, mean = candidate.predicted, candidate.mean
    if predicted is None or mean is None:
        return ""
    seeds = f"the mean over {candidate.n} fresh seeds"
    side = "inside" if candidate.inside else "below" if mean < predicted.low else "above"
    text = (
        f"The search predicted {_amount(predicted.mean, objective)} of the {candidate.name} "
        f"mixture, 90 % {_between(predicted.low, predicted.high)} for "
        f"{seeds if verdict.seed_scatter else 'its own seed only'}; measured {mean:.4f}, {side}."
    )
    others = [it.inside for it in verdict.candidates if it is not candidate]
    judged = [inside for inside in others if inside is not None]
    if judged:
        text += f" Of the other mixtures {sum(judged)} of {len(judged)} are inside."
    if verdict.seed_scatter:
        text += f" {scattered(verdict.seed_scatter).capitalize()}."
    return text


def interval(predicted: Predicted | None, digits: int) -> str:
    """A prediction ± half the width of its 90 % interval; a dash if there is none."""
    if predicted is None:
        return "–"
    return f"{predicted.mean:.{digits}f} ± {predicted.half:.{digits}f}"


def interval_label(verdict: Verdict | None) -> str:
    """The name of a row of `interval`."""
    repeated = verdict is not None and verdict.seed_scatter
    return "predicted mean ± 90 %" if repeated else "predicted ± 90 %, one seed only"


def mixtures_note(verdict: Verdict, objective: Objective) -> str:
    """What each ± of the table of mixtures is: the same words on every page."""
    note = (
        f"Measured: mean ± standard deviation over seeds; {better(objective)}. ± 90 % is half the "
        f"width of a 90 % interval: against {verdict.baseline}, of the mean difference over equal "
        "seeds; predicted, "
    )
    if verdict.seed_scatter:
        return note + "of the mean over those seeds, the search's own seed allowed for."
    return note + "for the search's own seed only."


def _between(low: float, high: float) -> str:
    return f"between {low:.4f} and {high:.4f}"


def _amount(value: float, objective: Objective) -> str:
    what = unit(objective)
    return f"{value:.4f}{' ' + what if what else ''}"


def _progress(trials: Sequence[Trial], objective: Objective, repeats: int) -> str:
    states = (State.COMPLETE, State.PRUNED, State.FAILED)
    done, pruned, failed = (sum(t.state is s for t in trials) for s in states)
    text = f"{done} of {len(trials)} trials are complete"
    text += f", {pruned} pruned" if pruned else ""
    text += f", {failed} failed" if failed else ""
    best = best_trial(trials, objective)
    if best is None:
        return text + "."
    scatter = seed_scatter_of(trials, objective, best.spec.fidelity)
    noise = unrepeated(trials, repeats) if scatter is None else scattered(scatter)
    return (
        f"{text}; the best so far is trial {best.number} with "
        f"{_amount(objective.shown.value(best.metrics), objective)}, of one seed: {noise}. "
        "Nothing is selected yet."
    )


def promotion_markdown(promotion: Promotion) -> str:
    """The promoted model's metrics, as a table in Markdown."""
    heads = ["metric", *(label for label, _ in moments(promotion))]
    heads += [proxy_label(promotion)] if promotion.trained else []
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for name in compared_metrics(promotion):
        cells = [_cell(values.get(name)) for _, values in moments(promotion)]
        cells += [interval(promotion.predicted.get(name), 4)] if promotion.trained else []
        rows.append([verbatim(name), *cells])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", PROXY_NOTE] if promotion.predicted else []
    lines += [] if promotion.trained else ["", UNTRAINED]
    return "\n".join(lines)


def compared_metrics(promotion: Promotion) -> list[str]:
    """The metrics of a promoted model's table: of ours bits per byte, else all that there are."""
    return [
        name
        for name in promotion.metrics
        if not promotion.upcycled or name.startswith(("bpb/", "task/"))
    ]


def moments(promotion: Promotion) -> list[tuple[str, Mapping[str, float]]]:
    """The models of a promotion that were evaluated, in order: label and metrics."""
    found = [
        ("dense seed", promotion.seed),
        ("upcycled, untrained", promotion.before),
        ("trained", promotion.after),
    ]
    return [(label, metrics) for label, metrics in found if metrics]


def made_by(promotion: Promotion) -> str:
    """How the promoted model came to be, and its size as far as it is known."""
    own = "Trained elsewhere" if promotion.checkpoint else "Trained by your own trainer"
    how = own if promotion.receipt is None else f"Upcycled by {promotion.method}"
    if promotion.by_trainer and promotion.receipt is not None:
        how += f", {own[0].lower()}{own[1:]}"
    spent = f"{count(promotion.tokens)} tokens" if promotion.trained else "not trained"
    parts = [how, spent]
    if promotion.model_params is not None:
        parts.append(f"{count(promotion.model_params)} parameters")
    if promotion.active_params is not None:
        of = " of them" if promotion.model_params is not None else " parameters"
        parts.append(f"{count(promotion.active_params)}{of} active per token")
    return ", ".join(parts)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def proxy_label(promotion: Promotion) -> str:
    """The name of what is predicted beside a promoted model: a proxy, its size and its tokens."""
    proxy = promotion.predicted_of
    size = f" of {count(proxy.params)} parameters" if proxy.params_known else ""
    return f"proxy{size} after {count(proxy.tokens)} tokens, predicted"
