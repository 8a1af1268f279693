"""What `mixopt run` ends with: the mixtures side by side, the promoted run, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mixopt.core.formatting import count, duration
from mixopt.core.objective import Objective
from mixopt.core.trials import State, Trial
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.console import styled
from mixopt.pipelines.views.holdout_words import holdout_lines
from mixopt.pipelines.views.multiplier_words import multiplier_line, multiplier_row
from mixopt.pipelines.views.reliability import reliability_line, reliability_warnings
from mixopt.pipelines.views.trade_offs import trade_line
from mixopt.pipelines.views.transfer_words import transfer_lines
from mixopt.pipelines.views.wording import (
    OVER_SEEDS,
    PROXY_NOTE,
    UNTRAINED,
    calibration,
    compared_metrics,
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
from mixopt.selection.looks import Looks
from mixopt.study.ledger import Ledger
from mixopt.study.looks_taken import looks_taken
from mixopt.study.records import read_promotion, read_transfer, read_verdict
from mixopt.study.reliability import study_reliability
from mixopt.study.results import Promotion, Verdict
from mixopt.study.settings import Study
from mixopt.surrogates.reliability import Reliability


def print_closing(study: Study, ledger: Ledger, domains: Sequence[str], console: Console) -> None:
    """Print the tables and the commands that go on from here."""
    trials, objective, home = ledger.trials(), ledger.objective, study.home
    verdict, promotion = read_verdict(home), read_promotion(home)
    console.rule(styled((study.name, "bold")), style="dim")
    if verdict is not None:
        console.print(mixtures_table(verdict, domains, objective, study.proxy.tokens))
        for line in verdict.binding:
            price = verdict.prices.get(line)  # not priced where there are too many
            word = "higher" if objective.sign == -1 else "lower"
            gain = "" if price is None else f" (without it the optimum is {price:.4f} {word})"
            console.print(f"  binds: {line}{gain}", style="dim")
        for line in guard_lines(verdict, objective):
            console.print(line, style="dim")
    said = headline(trials, objective, verdict, study.search.repeats)
    console.print(said, style="bold")
    for line in (trade_line(verdict), multiplier_line(verdict), calibration(verdict, objective)):
        if line:
            console.print(line)
    for line in transfer_lines(read_transfer(study), ledger.overruled(), objective.sign):
        console.print(line, markup=False)
    print_reliability(study_reliability(study, trials), console)
    for line in holdout_lines(home, ledger.holdout(), trials, objective):
        console.print(line, markup=False)
    _print_spent(trials, promotion, console)
    if promotion is not None:
        console.print()
        console.print(promotion_table(promotion))
        loads = loads_table(promotion)
        if loads is not None:
            console.print(loads)
    console.print()
    print_commands(study, looks_taken(ledger, home), console)


def print_reliability(found: Mapping[str, Reliability], console: Console) -> None:
    """Print how reliable the objective is, and the metrics that rank mixtures badly."""
    if line := reliability_line(found):
        console.print(line)
    for line in reliability_warnings(found):
        console.print(styled(("!", "yellow"), f" {line}"))


def mixtures_table(
    verdict: Verdict, domains: Sequence[str], objective: Objective, tokens: int
) -> Table:
    """Baseline, uniform and the finalists of the search: weights, prediction, measurement, cost."""
    verdict = verdict.turned(objective.sign)
    order = {verdict.baseline: 0, "uniform": 1}
    candidates = sorted(verdict.candidates, key=lambda it: order.get(it.name, 2))
    what = unit(objective) or "objective"
    table = Table(
        title=f"Mixtures, measured after {count(tokens)} tokens each",
        title_justify="left",
        caption=mixtures_note(verdict, objective),
        caption_justify="left",
    )
    table.add_column("")
    for it in candidates:
        style = "bold green" if it.name == verdict.promoted else None
        label = f"{it.name} (found)" if it.name == verdict.found else it.name
        table.add_column(label, justify="right", style=style)
    for domain in domains:
        weights = (it.mixture.as_dict().get(domain, 0.0) for it in candidates)
        table.add_row(domain, *(f"{weight:.1%}" for weight in weights))
    table.add_section()
    table.add_row(interval_label(verdict), *(interval(it.predicted, 3) for it in candidates))
    measured = (_spread(it.mean, it.std) for it in candidates)
    table.add_row(f"measured {what} {OVER_SEEDS}", *measured)
    table.add_row("seeds", *(str(it.n) for it in candidates))
    for label, cells in gate_rows(candidates, 3, verdict.baseline):
        table.add_row(label.replace("± 90 %", "±\u00a090\u00a0%"), *cells)  # folds before it
    for label, cells in multiplier_row(verdict, candidates):
        table.add_row(label.replace("90 %", "90\u00a0%"), *cells)
    table.add_section()
    table.add_row("tokens", *(count(it.tokens) for it in candidates))
    table.add_row("device time", *(duration(it.device_seconds) for it in candidates))
    return table


def promotion_table(promotion: Promotion) -> Table:
    """The promoted model: its metrics before and after, beside a proxy's prediction.

    Of our upcycling in bits per byte, of a trainer of the user's all that it measured. Of a model
    that was not trained there is no after, and no proxy stands beside it.
    """
    trained, shown = promotion.trained, moments(promotion)
    note = UNTRAINED if not trained else PROXY_NOTE if promotion.predicted else None
    table = Table(
        title=f"Promoted: the {promotion.mixture_name} mixture. {made_by(promotion)}",
        title_justify="left",
        caption=note,
        caption_justify="left",
    )
    table.add_column("bits per byte" if promotion.upcycled else "metric")
    columns = [*(label for label, _ in shown), *([proxy_label(promotion)] if trained else [])]
    for column in columns:
        table.add_column(column, justify="right")
    for metric in compared_metrics(promotion):
        cells = [_number(metrics.get(metric)) for _, metrics in shown]
        cells += [interval(promotion.predicted.get(metric), 3)] if trained else []
        name = metric.removeprefix("bpb/") if promotion.upcycled else metric
        table.add_row(styled(name), *cells)
    return table


def loads_table(promotion: Promotion) -> Table | None:
    """Per validation domain, each expert's share of its tokens, and the entropy of its gates.

    None for a dense model. Tokens that reach no expert have a column where there are some.
    """
    loads = promotion.loads
    entropies, dropped = promotion.entropies, promotion.dropped
    if not loads:
        return None
    table = Table(title="Expert load of the promoted model", title_justify="left")
    table.add_column("tokens of", no_wrap=True)
    for origin in promotion.expert_labels:
        table.add_column(f"expert {origin}", justify="right")
    lost = any(dropped.values())
    for title, shown in (("gate entropy", bool(entropies)), ("reach none", lost)):
        if shown:
            table.add_column(title, justify="right")
    for domain, load in loads.items():
        row = [domain, *(f"{share:.0%}" for share in load)]
        row += [f"{entropies[domain]:.2f}"] if entropies else []
        row += [f"{dropped[domain]:.1%}"] if lost else []
        table.add_row(*row)
    return table


def print_commands(study: Study, looks: Looks | None, console: Console) -> None:
    """Print the commands that open the views, go on, and take what was found."""
    file = _short(study.path)
    rows = [
        *([("open MLflow", command("ui", file))] if study.mlflow.enabled else []),
        ("open the report", str(_short(study.home / "report.html"))),
        ("see where it stands", command("status", file)),
        ("search on", f"raise search.rounds in {file}, then {command('run', file)}"),
        ("train on the mixture", command("export", file, "--mixture", "json")),
    ]
    if study.upcycling is not None:
        rows.append(("take the model", command("export", file, "--model", "OUT")))
    if looks is not None and not looks.left:
        note = "no look is left (select.looks): in a further verdict no candidate can pass"
        rows.insert(4, ("", note))
    for what, line in rows:  # never folded, so that they can be copied
        console.print(styled((f"{what:<20}", "dim"), f" {line}"), soft_wrap=True)


def _print_spent(trials: Sequence[Trial], promotion: Promotion | None, console: Console) -> None:
    cost = [t.result.cost for t in trials if t.result is not None]
    failed = sum(t.failure is not None for t in trials)
    pruned = sum(t.state is State.PRUNED for t in trials)
    line = (
        f"{len(cost)} trials, {count(sum(c.tokens for c in cost))} tokens, "
        f"{duration(sum(c.device_seconds for c in cost))} of device time"
    )
    if pruned:
        line += f"; {pruned} pruned"
    if failed:
        line += f"; {failed} failed"
    if promotion is not None and promotion.trained:
        line += f"; promotion: {count(promotion.tokens)} tokens"
        line += "" if promotion.checkpoint else f", {duration(promotion.device_seconds)}"
    console.print(line, style="dim")


def _short(path: Path) -> Path:
    """The path relative to where we are, if it is below."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _spread(mean: float | None, std: float | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.3f}" if std is None else f"{mean:.3f} ± {std:.3f}"
