"""The sections of a report, in order, each with the source of its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mixopt.core.formatting import count, duration
from mixopt.core.trials import State, Trial
from mixopt.pipelines.views.evidence import FILE, Evidence
from mixopt.pipelines.views.holdout_words import HELD_OUT, holdout_lines, holdout_rows
from mixopt.pipelines.views.multiplier_words import multiplier_line
from mixopt.pipelines.views.page.parts import Cell, Section, Table
from mixopt.pipelines.views.reliability import (
    HEAD,
    NOTE,
    ceiling,
    reliability_rows,
    reliability_warnings,
)
from mixopt.pipelines.views.report_columns import columns_of
from mixopt.pipelines.views.report_figures import (
    explored_figures,
    promotion_figures,
    search_figures,
    surrogate_figures,
)
from mixopt.pipelines.views.report_tables import (
    bill_table,
    binding_table,
    candidate_table,
    effect_table,
    metric_table,
    mixture_table,
    trial_table,
)
from mixopt.pipelines.views.scores import SCORES, off, score_cells, score_table
from mixopt.pipelines.views.settings_used import ROUNDS, VERDICTS, round_rows, verdict_rows
from mixopt.pipelines.views.trade_offs import NOTE as TRADE_NOTE
from mixopt.pipelines.views.trade_offs import front_figures, front_rows, trade_line
from mixopt.pipelines.views.transfer_words import LARGER, transfer_lines, transfer_rows
from mixopt.pipelines.views.wording import (
    PROXY_NOTE,
    UNTRAINED,
    calibration,
    guard_lines,
    interval,
    made_by,
    moments,
    proxy_label,
)
from mixopt.study.measured import Measured, better_higher
from mixopt.study.reliability import study_reliability
from mixopt.study.results import Promotion
from mixopt.study.snapshot import Snapshot
from mixopt.study.watched import read_watched
from mixopt.surrogates.reliability import Reliability
from mixopt.surrogates.scoring import OBJECTIVE

LEDGER = "ledger (trials and rounds)"


def sections_of(
    snapshot: Snapshot, evidence: Evidence, metrics: Sequence[Measured]
) -> list[Section]:
    """All sections; those with nothing to show are empty."""
    reliable = study_reliability(snapshot.study, snapshot.trials)
    return [
        _mixtures(snapshot),
        _candidates(snapshot, reliable),
        _metrics(snapshot, metrics),
        _trade_offs(snapshot),
        _larger(snapshot),
        _effects(snapshot, evidence),
        Section("Mixtures tried", figures=explored_figures(snapshot), source=f"{LEDGER}."),
        _search(snapshot, evidence),
        _surrogate(snapshot, evidence, reliable),
        _held_out(snapshot),
        _reliability(reliable),
        _promotion(snapshot),
        Section(
            "Cost",
            tables=bill_table(snapshot.trials, snapshot.promotion) if snapshot.trials else (),
            source=f"{LEDGER}; promotion/result.json.",
        ),
        _failed(snapshot),
        _pruned(snapshot),
        Section("Trials", tables=trial_table(snapshot), source=f"{LEDGER}."),
    ]


def _mixtures(snapshot: Snapshot) -> Section:
    verdict, text = snapshot.verdict, []
    tables = [*mixture_table(snapshot, columns_of(snapshot))]
    if verdict is not None:
        tables += binding_table(verdict, snapshot.objective.sign)
        if verdict.binding:
            text.append(_unconstrained(snapshot))
        text += guard_lines(verdict, snapshot.objective)
    told = "corpus manifest" if snapshot.study.domains is None else "study file"
    source = f"verdict.json; tokens of the {told}." if verdict else f"{LEDGER}."
    return Section("Mixtures", text, tables, source=source)


def _unconstrained(snapshot: Snapshot) -> str:
    assert snapshot.verdict is not None  # checked by the caller
    verdict = snapshot.verdict.turned(snapshot.objective.sign)
    parts = sorted(verdict.unconstrained.as_dict().items(), key=lambda item: -item[1])
    weights = ", ".join(f"{d} {w:.1%}" for d, w in parts if w >= 0.005)
    return (
        f"Without constraints the surrogate would choose {weights} (predicted objective "
        f"{verdict.unconstrained_mean:.4f})."
    )


def _candidates(snapshot: Snapshot, reliable: Mapping[str, Reliability]) -> Section:
    verdict = snapshot.verdict
    text = [
        multiplier_line(verdict),
        calibration(verdict, snapshot.objective),
        _why_intervals_differ(snapshot),
    ]
    judged = verdict_rows(snapshot.judged)
    tables = [*candidate_table(snapshot, columns_of(snapshot))]
    tables += [Table(VERDICTS, judged, title="Settings of the verdict")] if judged else []
    role = "trials with the role select" if verdict else "trials of the search"
    return Section(
        "Candidates",
        text,
        tables,
        warnings=reliability_warnings(reliable),
        source=f"verdict.json, from the ledger's {role}." if verdict else f"{LEDGER}.",
    )


def _why_intervals_differ(snapshot: Snapshot) -> str:
    if snapshot.verdict is None or snapshot.verdict.seed_scatter is None:
        return ""
    seeds = max(c.n for c in snapshot.verdict.candidates)
    return (
        f"Predictions here are for the mean over {seeds} fresh seeds, with the noise as it was "
        "known at the verdict. `mixopt predict` gives the mean over all seeds and one run, with "
        "the noise as it is known now: the same mean, other intervals."
    )


def _metrics(snapshot: Snapshot, metrics: Sequence[Measured]) -> Section:
    return Section(
        f"Results by {'domain' if snapshot.study.trainer is None else 'metric'}",
        [trade_line(snapshot.verdict)],
        metric_table(snapshot, metrics),
        source="ledger: the selection's trials.",
    )


def _trade_offs(snapshot: Snapshot) -> Section:
    head, front = front_rows(snapshot)
    tables = [Table(head, front, TRADE_NOTE)] if front else []
    return Section("Trade-offs", (), tables, front_figures(snapshot), source=f"{LEDGER}.")


def _larger(snapshot: Snapshot) -> Section:
    sign = snapshot.objective.sign
    rows = transfer_rows(snapshot.transfer, sign)
    lines = transfer_lines(snapshot.transfer, snapshot.overruled, sign)
    tables = [Table(LARGER, rows)] if rows else []
    return Section("Larger size", lines, tables, source="transfer.json.")


def _effects(snapshot: Snapshot, evidence: Evidence) -> Section:
    sign = snapshot.objective.sign
    effects = None if evidence.effects is None else evidence.effects.turned(sign)
    higher = better_higher(snapshot, () if effects is None else effects.metrics[:-1])
    tables = effect_table(effects, higher | ({OBJECTIVE} if sign == -1 else set()))
    text = f"By the surrogate {evidence.surrogate}, fitted to the search's trials."
    return Section("Effects of domains", [text] if tables else (), tables, source=f"{FILE}.")


def _search(snapshot: Snapshot, evidence: Evidence) -> Section:
    rows = round_rows(snapshot.rounds)
    return Section(
        "Search",
        tables=[Table(ROUNDS, rows)] if rows else (),
        figures=search_figures(snapshot, evidence),
        source=f"{LEDGER}; trials/*/curve.jsonl; replays in {FILE}.",
    )


def _surrogate(
    snapshot: Snapshot, evidence: Evidence, reliable: Mapping[str, Reliability]
) -> Section:
    quality = evidence.quality
    tables = [] if quality is None else [score_table("metric", quality.scores, reliable)]
    verdict = snapshot.verdict
    if verdict is not None and verdict.surrogate_scores:
        most = ceiling(reliable, OBJECTIVE)
        rows = [
            (
                f"{name} (used)" if name == verdict.surrogate else name,
                *score_cells(score, most),
            )
            for name, score in verdict.surrogate_scores.items()
        ]
        tables.append(
            Table(("surrogate", *SCORES), rows, "Of the objective.", title="Surrogates compared")
        )
    used = verdict.surrogate if verdict is not None else ""
    return Section(
        "Predictions",
        [f"The search's optimum comes from the surrogate {used}."] if used else (),
        tables,
        surrogate_figures(evidence, reliable, snapshot.objective),
        warnings=[] if quality is None else off(quality.scores),
        source=f"{FILE}" + ("; compared surrogates in verdict.json." if verdict else "."),
    )


def _held_out(snapshot: Snapshot) -> Section:
    asked = (snapshot.study.home, snapshot.holdout, snapshot.trials)
    rows = holdout_rows(*asked)
    return Section(
        "Held-out trials",
        holdout_lines(*asked, snapshot.objective),
        [Table(HELD_OUT, rows)] if rows else (),
        source="holdout.json; ledger: trials with the role holdout.",
    )


def _reliability(reliable: Mapping[str, Reliability]) -> Section:
    rows = reliability_rows(reliable)
    return Section(
        "Noise and reliability",
        tables=[Table(HEAD, rows, NOTE)] if rows else (),
        source="ledger: mixtures that were run with several seeds.",
    )


def _promotion(snapshot: Snapshot) -> Section:
    promotion = snapshot.promotion
    if promotion is None:
        return Section("Promotion")
    named = ", ".join(f"{name} from {model}" for name, model in promotion.imported.items())
    text = [
        f"{made_by(promotion)}. The model lies in {Path('promotion') / promotion.model}.",
        f"Imported: {named}." if named else "",
        PROXY_NOTE if promotion.predicted else "",
        "" if promotion.trained else UNTRAINED,
    ]
    return Section(
        "Promotion",
        text,
        [_measured_table(promotion), *_stages(promotion)],
        promotion_figures(snapshot),
        warnings=[
            f"While it trained: {text}."
            for text in read_watched(snapshot.study.home / "promotion" / promotion.id).findings
        ],
        source="promotion/result.json.",
    )


def _stages(promotion: Promotion) -> list[Table]:
    rows = [
        (stage.name, stage.kind, count(stage.tokens), duration(stage.device_seconds))
        for stage in promotion.stages
    ]
    return [Table(("stage", "kind", "tokens", "device time"), rows)] if rows else []


def _measured_table(promotion: Promotion) -> Table:
    shown = moments(promotion)
    beside = [proxy_label(promotion)] if promotion.predicted else []
    rows = [
        (
            name,
            *("–" if name not in values else f"{values[name]:.4f}" for _, values in shown),
            *(interval(promotion.predicted.get(name), 4) for _ in beside),
        )
        for name in promotion.metrics
        if not promotion.upcycled or not name.startswith("loss/")
    ]
    return Table(("metric", *(label for label, _ in shown), *beside), rows)


def _failed(snapshot: Snapshot) -> Section:
    failed = [t for t in snapshot.trials if t.state is State.FAILED]
    rows: list[tuple[str | Cell, ...]] = [
        (str(t.number), str(t.failure), str(t.attempts), Cell(t.message, wide=True)) for t in failed
    ]
    table = Table(
        ("trial", "why", "attempts", "message"), rows, "A failed trial never becomes a score."
    )
    none = ["No trial has failed."] if snapshot.trials and not failed else ()
    return Section("Failed trials", none, [table] if rows else (), source=f"{LEDGER}.")


def _pruned(snapshot: Snapshot) -> Section:
    rows: list[tuple[str | Cell, ...]] = [
        (str(t.number), *_share_trained(t), Cell(t.message, wide=True))
        for t in snapshot.trials
        if t.state is State.PRUNED
    ]
    note = (
        "A pruned trial was stopped because it would hardly have beaten the best one: no failure, "
        "and no score. What it cost is counted."
    )
    table = Table(("trial", "trained", "of its tokens", "why"), rows, note)
    return Section("Pruned trials", (), [table] if rows else (), source=f"{LEDGER}.")


def _share_trained(trial: Trial) -> tuple[str, str]:
    """Tokens that a pruned trial was trained for, and which share of its training that is."""
    tokens = trial.result.cost.tokens if trial.result is not None else 0
    return count(tokens), f"{tokens / trial.spec.fidelity.tokens:.0%}"


def versions(trials: Sequence[Trial]) -> list[tuple[str, str]]:
    """Every version and device that trials ran with."""
    seen: dict[str, dict[str, None]] = {}
    for trial in trials:
        for key, value in (trial.result.environment if trial.result is not None else {}).items():
            seen.setdefault(key, {})[str(value)] = None
    return [(key, ", ".join(values)) for key, values in seen.items()]
