"""The report: one HTML page that needs no network, from the ledger and the study folder alone.

    mixopt report STUDY.yaml

It can be written at any stage of a study, also while a driver works on it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.core.formatting import count
from mixopt.core.mixture import Mixture
from mixopt.core.trials import Role, State, Trial
from mixopt.io import files
from mixopt.pipelines.views.mlflow.mlflow_store import ui_command
from mixopt.pipelines.views.report_figures import (
    promotion_figures,
    search_figures,
    selection_figures,
    surrogate_figures,
    surrogate_quality,
)
from mixopt.pipelines.views.settings_used import ROUNDS, VERDICTS, round_rows, verdict_rows
from mixopt.pipelines.views.wording import (
    OVER_SEEDS,
    PROXY_NOTE,
    best_trial,
    command,
    duration,
    foretold,
    gate_level,
    gate_rows,
    headline,
    interval,
    interval_label,
    mixtures_note,
    unit,
)
from mixopt.study import records
from mixopt.study.frames import objective_value
from mixopt.study.locked import require_begun
from mixopt.study.settings import Study
from mixopt.study.snapshot import Snapshot, read_snapshot
from mixopt.surrogates.scoring import OutOfFold

if TYPE_CHECKING:
    import plotly.graph_objects as go

TEMPLATE = Path(__file__).with_name("report_template.html")


@dataclass(frozen=True)
class Column:
    """One mixture of the table."""

    name: str
    mixture: Mixture
    chosen: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


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
    if snapshot.promotion.get("tokens"):
        facts.append(("promotion tokens", count(snapshot.promotion["tokens"])))
    return facts


def _share_trained(trial: Trial) -> tuple[str, str]:
    """Tokens that a pruned trial was trained for, and which share of its training that is."""
    tokens = trial.result.cost.tokens if trial.result is not None else 0
    return count(tokens), f"{tokens / trial.spec.fidelity.tokens:.0%}"


def _columns(snapshot: Snapshot) -> list[Column]:
    if snapshot.verdict.get("candidates"):
        promoted = snapshot.verdict.get("promoted")
        return [
            Column(
                str(candidate["name"]),
                Mixture.of(candidate["mixture"]),
                candidate["name"] == promoted,
                candidate,
            )
            for candidate in snapshot.verdict["candidates"]
        ]
    columns = []
    if snapshot.available:
        columns.append(Column("natural", Mixture.natural(snapshot.available)))
    best = best_trial(snapshot.trials, snapshot.objective)
    if best is not None:
        facts = {"mean": snapshot.objective.value(best.metrics), "n": 1}
        columns.append(Column("best observed", best.spec.mixture, facts=facts))
    return [_measured(column, snapshot) for column in columns]


def _measured(column: Column, snapshot: Snapshot) -> Column:
    """`column` with what trials on the same mixture showed, if nothing better is known."""
    found = [
        value
        for t in snapshot.trials
        if t.spec.role is not Role.SELECT
        and t.spec.mixture.domains == column.mixture.domains
        and t.spec.mixture.distance(column.mixture) < 1e-3
        and (value := objective_value(t, snapshot.objective)) is not None
    ]
    if column.facts or not found:
        return column
    facts = {"mean": sum(found) / len(found), "n": len(found), "values": found}
    return Column(column.name, column.mixture, column.chosen, facts)


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
    results = [
        _Row(f"measured {what or 'objective'} {OVER_SEEDS}", [_spread(c.facts) for c in columns]),
        _Row(interval_label(snapshot.verdict), [interval(c.facts, 4) for c in columns]),
        *(_Row(label, cells) for label, cells in gate_rows([c.facts for c in columns], 4)),
        _Row("tokens spent", [_or_dash(c.facts.get("tokens"), count) for c in columns]),
        _Row("device time", [_or_dash(c.facts.get("device_seconds"), duration) for c in columns]),
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
    note = "Measured: the objective, lower is better."
    if snapshot.verdict:
        note = (
            f"{mixtures_note(snapshot.verdict)} Adjusted p-value: one-sided, times the number of "
            f"candidates. {gate_level(snapshot.verdict, snapshot.study.select.confidence)}"
        )
    if snapshot.available:
        budget = count(snapshot.study.budget)
        note += f" In brackets: epochs over the domain in a run of {budget} tokens."
    return note


def _remarks(snapshot: Snapshot) -> list[str]:
    said = foretold(snapshot.verdict, snapshot.objective)
    remarks = [said] if said else []
    binding = [str(line) for line in snapshot.verdict.get("binding", [])]
    if binding:
        remarks.append("Constraints that bind: " + "; ".join(binding) + ".")
    free = snapshot.verdict.get("unconstrained") or {}
    if binding and free:
        parts = sorted(free.items(), key=lambda item: -item[1])
        said = ", ".join(f"{d} {w:.1%}" for d, w in parts if w >= 0.005)
        remarks.append(f"Without constraints the surrogate would choose {said}.")
    return remarks


def _sections(snapshot: Snapshot, columns: Sequence[Column]) -> list[Section]:
    mixtures = {column.name: column.mixture for column in columns}
    known = surrogate_quality(snapshot)
    surrogate = _html(surrogate_figures(*known)) if known is not None else []
    scores = _scores(snapshot, known[1] if known is not None else None)
    sections = [
        Section(
            "Selection",
            tables=_table(VERDICTS, verdict_rows(snapshot.judged)),
            figures=_html(selection_figures(snapshot, mixtures)),
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
        Section("Surrogate", _surrogate_text(snapshot), scores, surrogate),
    ]
    return [s for s in sections if s.figures or s.tables]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Table]:
    return [Table(head, rows)] if rows else []


def _promotion_text(snapshot: Snapshot) -> str:
    found = snapshot.promotion
    if not found:
        return ""
    said = f"Upcycled by {found.get('method', 'an unnamed method')}"
    if found.get("model_params"):
        said += f" to {count(found['model_params'])} parameters"
    if found.get("active_params"):
        said += f", {count(found['active_params'])} of them active for a token"
    if found.get("model"):
        said += f". The model lies in {Path('promotion') / found['model']}"
    return said + "." + (f" {PROXY_NOTE}" if found.get("predicted") else "")


def _stages(snapshot: Snapshot) -> list[Table]:
    stages = snapshot.promotion.get("stages") or []
    rows = [
        (
            str(stage.get("name", "")),
            str(stage.get("kind", "")),
            _or_dash(stage.get("tokens"), count),
            _or_dash(stage.get("device_seconds"), duration),
        )
        for stage in stages
    ]
    return _table(("stage", "kind", "tokens", "device time"), rows)


def _surrogate_text(snapshot: Snapshot) -> str:
    chosen = snapshot.verdict.get("surrogate")
    return f"The search's optimum comes from the surrogate {chosen!r}." if chosen else ""


def _scores(snapshot: Snapshot, quality: OutOfFold | None) -> list[Table]:
    """Held-out scores: per metric, and of the surrogates that the search compared."""
    tables = []
    if quality is not None:
        rows = [
            (
                metric,
                f"{score.spearman:.3f}",
                f"{score.r2:.3f}",
                f"{score.mae:.4f}",
                f"{score.coverage:.0%}",
                str(score.n),
            )
            for metric, score in quality.scores.items()
        ]
        heads = ("", "rank correlation", "R²", "mean error", "within 90 %", "trials")
        tables.append(Table(heads, rows))
    compared = snapshot.verdict.get("surrogate_scores") or {}
    names = list(dict.fromkeys(key for values in compared.values() for key in values))
    rows_compared = [
        (name, *(_or_dash(values.get(key), _number) for key in names))
        for name, values in compared.items()
    ]
    return tables + _table(("surrogate", *names), rows_compared)


def _commands(study: Study) -> list[tuple[str, str]]:
    return [
        ("go on from where the study stands", command("run", study.path)),
        ("write this report again", command("report", study.path)),
        ("rebuild MLflow's view from the ledger", command("sync", study.path)),
        ("open MLflow", ui_command(study)),
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


def _spread(facts: Mapping[str, Any]) -> str:
    if facts.get("mean") is None:
        return "–"
    seeds = f" (n={facts['n']})" if facts.get("n") else ""
    return _pair(facts, "mean", "std") + seeds


def _pair(facts: Mapping[str, Any], mean: str, std: str) -> str:
    if facts.get(mean) is None:
        return "–"
    spread = f" ± {facts[std]:.4f}" if facts.get(std) is not None else ""
    return f"{facts[mean]:.4f}{spread}"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _or_dash(value: float | None, text: Any) -> str:
    return "–" if value is None else str(text(value))
