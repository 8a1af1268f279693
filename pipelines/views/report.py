"""The report: one HTML page that needs no network, from the ledger and the study folder alone.

    mixopt report STUDY.yaml

It can be written at any stage of a study, also while a driver works on it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.core.formatting import count
from mixopt.core.mixture import Mixture
from mixopt.core.trials import State, Trial
from mixopt.io import files
from mixopt.pipelines.views.holdout_words import HELD_OUT, holdout_lines, holdout_rows
from mixopt.pipelines.views.multiplier_words import multiplier_line, multiplier_row
from mixopt.pipelines.views.reliability import (
    HEAD,
    NOTE,
    ceiling,
    reliability_rows,
    reliability_warnings,
)
from mixopt.pipelines.views.report_figures import (
    promotion_figures,
    search_figures,
    selection_figures,
    surrogate_figures,
    surrogate_quality,
)
from mixopt.pipelines.views.settings_used import ROUNDS, VERDICTS, round_rows, verdict_rows
from mixopt.pipelines.views.trade_offs import NOTE as TRADE_NOTE
from mixopt.pipelines.views.trade_offs import front_figures, front_rows, trade_line
from mixopt.pipelines.views.transfer_words import LARGER, transfer_lines, transfer_rows
from mixopt.pipelines.views.wording import (
    OVER_SEEDS,
    PROXY_NOTE,
    UNTRAINED,
    better,
    calibration,
    command,
    duration,
    gate_level,
    gate_rows,
    guard_lines,
    headline,
    interval,
    interval_label,
    made_by,
    mixtures_note,
    moments,
    proxy_label,
    unit,
)
from mixopt.selection.gate import best_observed
from mixopt.selection.results import Candidate
from mixopt.study import records
from mixopt.study.locked import require_begun
from mixopt.study.queries import search_trials
from mixopt.study.reliability import study_reliability
from mixopt.study.results import Promotion
from mixopt.study.settings import Study
from mixopt.study.snapshot import Snapshot, read_snapshot
from mixopt.surrogates.reliability import Reliability
from mixopt.surrogates.scoring import OBJECTIVE, OutOfFold, Score

if TYPE_CHECKING:
    import plotly.graph_objects as go

TEMPLATE = Path(__file__).with_name("report_template.html")


@dataclass(frozen=True)
class Column:
    """One mixture of the table."""

    name: str
    mixture: Mixture
    chosen: bool = False
    measured: Candidate | None = None


@dataclass(frozen=True)
class Table:
    """A small table of texts."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[str] = ()


def write_report(study: Study, out: Path | None = None) -> Path:
    """Write the report of `study` and return its path.

    Args:
        study: is only read; its folder may be on a read-only disk.
        out: the file to write; `report.html` in the study folder if not given.

    Raises:
        StudyError: the study has not begun.
        LedgerError: the ledger cannot be reached.
        FileError: the report cannot be written there.
    """
    require_begun(study)
    path = out or study.home / "report.html"
    files.write_bytes(path, render(read_snapshot(study)).encode())
    return path


def render(snapshot: Snapshot) -> str:
    """The page, with plotly's code in it once."""
    import jinja2
    from plotly.offline import get_plotlyjs

    # autoescape: names of domains and messages of failed trials are not ours
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text())
    columns = _columns(snapshot)
    return template.render(
        name=snapshot.study.name,
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
        headline=headline(snapshot.trials, snapshot.objective, snapshot.verdict),
        facts=_facts(snapshot),
        columns=columns,
        rows=_rows(snapshot, columns),
        table_note=_table_note(snapshot),
        remarks=_remarks(snapshot),
        sections=_sections(snapshot, columns),
        failures=[t for t in snapshot.trials if t.state is State.FAILED],
        pruned=[(t, *_share_trained(t)) for t in snapshot.trials if t.state is State.PRUNED],
        commands=_commands(snapshot.study),
        settings=[(k, str(v)) for k, v in records.read_settings(snapshot.study.home).items()],
        versions=_versions(snapshot.trials),
        plotly=get_plotlyjs(),
    )


def _facts(snapshot: Snapshot) -> list[tuple[str, str]]:
    costs = [t.result.cost for t in snapshot.trials if t.result is not None]
    complete, pruned, failed = (
        sum(t.state is state for t in snapshot.trials)
        for state in (State.COMPLETE, State.PRUNED, State.FAILED)
    )
    facts = [
        ("trials complete", f"{complete} of {len(snapshot.trials)}"),
        *([("trials pruned", str(pruned))] if pruned else []),
        ("trials failed", str(failed)),
        ("proxy tokens", count(sum(c.tokens for c in costs))),
        ("device time of proxies", duration(sum(c.device_seconds for c in costs))),
        ("proxy FLOPs", count(sum(c.flops for c in costs))),
    ]
    if snapshot.promotion is not None and snapshot.promotion.trained:
        facts.append(("promotion tokens", count(snapshot.promotion.tokens)))
    return facts


def _share_trained(trial: Trial) -> tuple[str, str]:
    """Tokens that a pruned trial was trained for, and which share of its training that is."""
    tokens = trial.result.cost.tokens if trial.result is not None else 0
    return count(tokens), f"{tokens / trial.spec.fidelity.tokens:.0%}"


def _columns(snapshot: Snapshot) -> list[Column]:
    if snapshot.verdict is not None:
        promoted = snapshot.verdict.promoted
        return [
            Column(it.name, it.mixture, it.name == promoted, it)
            for it in snapshot.verdict.candidates
        ]
    columns = [_column(name, mixture, snapshot) for name, mixture in snapshot.baselines.items()]
    best = best_observed(search_trials(snapshot.trials), snapshot.objective)
    if best is not None:
        columns.append(_column("best observed", best, snapshot))
    return columns


def _column(name: str, mixture: Mixture, snapshot: Snapshot) -> Column:
    """`mixture` with the measurements of the search's trials on it."""
    same = [t for t in search_trials(snapshot.trials) if t.spec.mixture.same_as(mixture)]
    values = [value for t in same if (value := snapshot.objective.of_trial(t)) is not None]
    if not values:
        return Column(name, mixture)
    mean = sum(values) / len(values)
    return Column(
        name,
        mixture,
        measured=Candidate(name, mixture, n=len(values), mean=mean, values=tuple(values)),
    )


@dataclass(frozen=True)
class _Row:
    label: str
    cells: Sequence[str]


def _rows(snapshot: Snapshot, columns: Sequence[Column]) -> list[list[_Row]]:
    domains = list(dict.fromkeys(d for c in columns for d in c.mixture.domains))
    weights = [
        _Row(domain, [_weight(snapshot, column.mixture, domain) for column in columns])
        for domain in domains
    ]
    what = unit(snapshot.objective)
    sign = snapshot.objective.sign
    shown = [(c.measured or Candidate(c.name, c.mixture)).turned(sign) for c in columns]
    results = [
        _Row(f"measured {what or 'objective'} {OVER_SEEDS}", [_spread(it) for it in shown]),
        _Row(interval_label(snapshot.verdict), [interval(it.predicted, 4) for it in shown]),
        *(_Row(label, cells) for label, cells in gate_rows(shown, 4, snapshot.baseline)),
        *(_Row(label, cells) for label, cells in multiplier_row(snapshot.verdict, shown)),
    ]
    if snapshot.verdict is not None:
        results += [
            _Row("tokens spent", [count(it.tokens) for it in shown]),
            _Row("device time", [duration(it.device_seconds) for it in shown]),
        ]
    return [weights, [row for row in results if any(cell != "–" for cell in row.cells)]]


def _weight(snapshot: Snapshot, mixture: Mixture, domain: str) -> str:
    weight = mixture.as_dict().get(domain, 0.0)
    tokens = snapshot.available.get(domain)
    if not tokens:
        return f"{weight:.1%}"
    epochs = weight * snapshot.study.budget / tokens
    return f"{weight:.1%} ({f'{epochs:.2g}' if epochs >= 0.01 or not epochs else '<0.01'}×)"


def _table_note(snapshot: Snapshot) -> str:
    note = f"Measured: the objective, {better(snapshot.objective)}."
    if snapshot.verdict is not None:
        note = (
            f"{mixtures_note(snapshot.verdict, snapshot.objective)} Adjusted p-value: one-sided, "
            f"adjusted for the number of candidates. {gate_level(snapshot.verdict)}"
        )
    if snapshot.available:
        budget = count(snapshot.study.budget)
        note += f" In brackets: epochs over the domain in a run of {budget} tokens."
    return note


def _remarks(snapshot: Snapshot) -> list[str]:
    verdict, remarks = snapshot.verdict, reliability_warnings(_reliability(snapshot))
    if verdict is None:
        return remarks
    measured = calibration(verdict, snapshot.objective)
    lines = (trade_line(verdict), multiplier_line(verdict), measured)
    remarks = [*(line for line in lines if line), *remarks]
    if verdict.binding:
        remarks.append("Constraints that bind: " + "; ".join(verdict.binding) + ".")
        parts = sorted(verdict.unconstrained.as_dict().items(), key=lambda item: -item[1])
        weights = ", ".join(f"{d} {w:.1%}" for d, w in parts if w >= 0.005)
        remarks.append(f"Without constraints the surrogate would choose {weights}.")
    return [*remarks, *guard_lines(verdict, snapshot.objective)]


def _sections(snapshot: Snapshot, columns: Sequence[Column]) -> list[Section]:
    mixtures = {column.name: column.mixture for column in columns}
    known, reliable = surrogate_quality(snapshot), _reliability(snapshot)
    of, sign = reliable.get(OBJECTIVE), snapshot.objective.sign
    figures = [] if known is None else surrogate_figures(*known, of, sign)
    scores = _scores(snapshot, known[1] if known is not None else None, reliable)
    head, front = front_rows(snapshot)
    sign = snapshot.objective.sign
    held_out = (snapshot.study.home, snapshot.holdout, snapshot.trials)
    sections = [
        Section(
            "Selection",
            tables=_table(VERDICTS, verdict_rows(snapshot.judged)),
            figures=_html(selection_figures(snapshot, mixtures)),
        ),
        Section(
            "Trade-offs",
            TRADE_NOTE if front else "",
            _table(head, front),
            _html(front_figures(snapshot)),
        ),
        Section(
            "Larger size",
            " ".join(transfer_lines(snapshot.transfer, snapshot.overruled, sign)),
            _table(LARGER, transfer_rows(snapshot.transfer, sign)),
        ),
        Section(
            "Promotion",
            _promotion_text(snapshot),
            _stages(snapshot),
            _html(promotion_figures(snapshot)),
        ),
        Section(
            "Search",
            tables=_table(ROUNDS, round_rows(snapshot.rounds)),
            figures=_html(search_figures(snapshot)),
        ),
        Section(
            "Held-out trials",
            " ".join(holdout_lines(*held_out)),
            _table(HELD_OUT, holdout_rows(*held_out)),
        ),
        Section("Reliability", NOTE if reliable else "", _table(HEAD, reliability_rows(reliable))),
        Section("Surrogate", _surrogate_text(snapshot), scores, _html(figures)),
    ]
    return [s for s in sections if s.figures or s.tables or s.text]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Table]:
    return [Table(head, rows)] if rows else []


def _promotion_text(snapshot: Snapshot) -> str:
    promotion = snapshot.promotion
    if promotion is None:
        return ""
    return (
        f"{made_by(promotion)}. The model lies in {Path('promotion') / promotion.model}."
        + _imported_text(promotion)
        + (f" {PROXY_NOTE}" if promotion.predicted else "")
        + ("" if promotion.trained else f" {UNTRAINED}")
    )


def _imported_text(promotion: Promotion) -> str:
    named = ", ".join(f"{name} from {model}" for name, model in promotion.imported.items())
    return f" Imported: {named}." if named else ""


def _stages(snapshot: Snapshot) -> list[Table]:
    promotion = snapshot.promotion
    stages = promotion.stages if promotion is not None else ()
    measured = [] if promotion is None or promotion.upcycled else _measured_table(promotion)
    rows = [
        (stage.name, stage.kind, count(stage.tokens), duration(stage.device_seconds))
        for stage in stages
    ]
    return [*measured, *_table(("stage", "kind", "tokens", "device time"), rows)]


def _measured_table(promotion: Promotion) -> list[Table]:
    """The metrics of a full run by a trainer of the user's, of which no figure is drawn."""
    shown = moments(promotion)
    rows = [
        (
            name,
            *(f"{values[name]:.4f}" for _, values in shown),
            interval(promotion.predicted.get(name), 4),
        )
        for name in promotion.metrics
    ]
    return _table(("metric", *(label for label, _ in shown), proxy_label(promotion)), rows)


def _surrogate_text(snapshot: Snapshot) -> str:
    if snapshot.verdict is None:
        return ""
    return f"The search's optimum comes from the surrogate {snapshot.verdict.surrogate!r}."


def _reliability(snapshot: Snapshot) -> dict[str, Reliability]:
    return study_reliability(snapshot.study, snapshot.trials)


def _scores(
    snapshot: Snapshot, quality: OutOfFold | None, reliable: Mapping[str, Reliability]
) -> list[Table]:
    """Held-out scores: per metric, and of the surrogates that the search compared."""
    tables = []
    if quality is not None:
        rows = [
            (
                metric,
                f"{score.spearman:.3f}",
                ceiling(reliable, metric),
                f"{score.r2:.3f}",
                f"{score.mae:.4f}",
                f"{score.coverage:.0%}",
                str(score.n),
            )
            for metric, score in quality.scores.items()
        ]
        heads = (
            "",
            "rank correlation",
            "ceiling",
            "R²",
            "mean error",
            "within the 90 % interval of a run",
            "trials",
        )
        tables.append(Table(heads, rows))
    compared = snapshot.verdict.surrogate_scores if snapshot.verdict is not None else {}
    first, *others = [score.name for score in dataclasses.fields(Score)]
    most = ceiling(reliable, OBJECTIVE)
    rows_compared = [
        (name, _number(score.spearman), most, *(_number(getattr(score, it)) for it in others))
        for name, score in compared.items()
    ]
    return tables + _table(("surrogate", first, "ceiling", *others), rows_compared)


def _commands(study: Study) -> list[tuple[str, str]]:
    return [
        ("go on from where the study stands", command("run", study.path)),
        ("write this report again", command("report", study.path)),
        ("rebuild MLflow's view from the ledger", command("sync", study.path)),
        *([("open MLflow", command("ui", study.path))] if study.mlflow.enabled else []),
    ]


def _versions(trials: Sequence[Trial]) -> list[tuple[str, str]]:
    seen: dict[str, dict[str, None]] = {}
    for trial in trials:
        for key, value in (trial.result.environment if trial.result is not None else {}).items():
            seen.setdefault(key, {})[str(value)] = None
    return [(key, ", ".join(values)) for key, values in seen.items()]


def _html(figures: Sequence[go.Figure]) -> list[str]:
    show = {"responsive": True, "displaylogo": False, "displayModeBar": False}
    return [f.to_html(full_html=False, include_plotlyjs=False, config=show) for f in figures]


def _spread(candidate: Candidate) -> str:
    if candidate.mean is None:
        return "–"
    spread = "" if candidate.std is None else f" ± {candidate.std:.4f}"
    return f"{candidate.mean:.4f}{spread} (n={candidate.n})"


def _number(value: float) -> str:
    """A score in short; a dash where it is not defined."""
    if math.isnan(value):
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
