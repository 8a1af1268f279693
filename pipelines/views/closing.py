"""What `mixopt run` ends with: the mixtures side by side, the promoted run, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mixopt.core.formatting import count
from mixopt.core.objective import Objective
from mixopt.core.trials import State, Trial
from mixopt.pipelines.views.console import styled
from mixopt.pipelines.views.mlflow.tracking import ui_command
from mixopt.pipelines.views.wording import (
    OVER_SEEDS,
    PROXY_NOTE,
    command,
    duration,
    foretold,
    gate_rows,
    headline,
    interval,
    interval_label,
    mixtures_note,
    promised,
    proxy_label,
    unit,
)
from mixopt.selection.looks import Looks
from mixopt.study.ledger import Ledger
from mixopt.study.looks_taken import looks_taken
from mixopt.study.records import read_promotion, read_verdict
from mixopt.study.settings import Study


def print_closing(study: Study, ledger: Ledger, domains: Sequence[str], console: Console) -> None:
    """Print the tables and the commands that go on from here."""
    trials, objective, home = ledger.trials(), ledger.objective, study.home
    verdict, promotion = read_verdict(home), read_promotion(home)
    console.rule(styled((study.name, "bold")), style="dim")
    if verdict:
        console.print(mixtures_table(verdict, domains, objective, study.proxy.tokens))
        for line in verdict.get("binding", []):
            price = verdict.get("prices", {}).get(line)
            gain = "" if price is None else f" (without it the optimum is {price:.4f} lower)"
            console.print(f"  binds: {line}{gain}", style="dim")
    console.print(headline(trials, objective, verdict), style="bold")
    said = foretold(verdict, objective)
    if said:
        console.print(said)
    _print_spent(trials, promotion, console)
    if promotion:
        console.print()
        console.print(promotion_table(promotion))
        loads = loads_table(promotion)
        if loads is not None:
            console.print(loads)
    console.print()
    print_commands(study, looks_taken(ledger, home), console)


def mixtures_table(
    verdict: Mapping[str, Any], domains: Sequence[str], objective: Objective, tokens: int
) -> Table:
    """Natural, uniform and the finalists of the search: weights, prediction, measurement, cost."""
    candidates = {candidate["name"]: candidate for candidate in verdict["candidates"]}
    names = sorted(candidates, key=lambda name: {"natural": 0, "uniform": 1}.get(name, 2))
    what = unit(objective) or "objective"
    table = Table(
        title=f"Mixtures, measured after {count(tokens)} tokens each",
        title_justify="left",
        caption=mixtures_note(verdict),
        caption_justify="left",
    )
    table.add_column("")
    for name in names:
        style = "bold green" if name == verdict["promoted"] else None
        label = f"{name} (found)" if name == verdict.get("found") else name
        table.add_column(label, justify="right", style=style)
    for domain in domains:
        table.add_row(domain, *(f"{candidates[n]['mixture'].get(domain, 0.0):.1%}" for n in names))
    table.add_section()
    table.add_row(interval_label(verdict), *(interval(candidates[n], 3) for n in names))
    table.add_row(
        f"measured {what} {OVER_SEEDS}",
        *(_spread(candidates[n].get("mean"), candidates[n].get("std")) for n in names),
    )
    table.add_row("seeds", *(str(candidates[n].get("n", 0)) for n in names))
    for label, cells in gate_rows([candidates[n] for n in names], 3):
        table.add_row(label, *cells)
    table.add_section()
    table.add_row("tokens", *(count(candidates[n].get("tokens", 0)) for n in names))
    table.add_row("device time", *(duration(candidates[n].get("device_seconds", 0)) for n in names))
    return table


def promotion_table(promotion: Mapping[str, Any]) -> Table:
    """The promoted run: bits per byte per domain, before and after, beside a proxy's prediction."""
    title = (
        f"Promoted: {promotion.get('mixture_name', '')} mixture by {promotion['method']}, "
        f"{count(promotion['tokens'])} tokens in {len(promotion['stages'])} stages, "
        f"{count(promotion['active_params'])} of {count(promotion['model_params'])} "
        "parameters active"
    )
    note = PROXY_NOTE if promotion.get("predicted") else None
    table = Table(title=title, title_justify="left", caption=note, caption_justify="left")
    table.add_column("bits per byte")
    for column in ("dense seed", "upcycled", "trained", proxy_label(promotion)):
        table.add_column(column, justify="right")
    for metric, after in promotion["after"].items():
        if not metric.startswith(("bpb/", "task/")):
            continue
        table.add_row(
            metric.removeprefix("bpb/"),
            _number(promotion.get("seed", {}).get(metric)),
            _number(promotion.get("before", {}).get(metric)),
            _number(after),
            interval(promised(promotion, metric), 3),
        )
    return table


def loads_table(promotion: Mapping[str, Any]) -> Table | None:
    """Per validation domain, the share of its tokens that each expert works on, and its gates.

    A promotion of an older version tells no gates; tokens that reach no expert are told of where
    there are some.
    """
    loads, experts = promotion.get("loads", {}), promotion.get("expert_names", [])
    entropies, dropped = promotion.get("entropies", {}), promotion.get("dropped", {})
    if not loads:
        return None
    table = Table(title="Expert load of the promoted model", title_justify="left")
    table.add_column("tokens of", no_wrap=True)
    width = max(len(load) for load in loads.values())
    for number in range(width):
        origin = experts[number] if number < len(experts) else "seed"
        table.add_column(f"expert {origin}", justify="right")
    lost = any(dropped.values())
    for title, told in (("gate entropy", bool(entropies)), ("reach none", lost)):
        if told:
            table.add_column(title, justify="right")
    for domain, load in loads.items():
        row = [domain, *(f"{share:.0%}" for share in load)]
        row += [f"{entropies[domain]:.2f}"] if entropies else []
        row += [f"{dropped[domain]:.1%}"] if lost else []
        table.add_row(*row)
    return table


def print_commands(study: Study, looks: Looks | None, console: Console) -> None:
    """Print the commands that open the views, go on, and begin with one's own text."""
    file = _short(study.path)
    rows = [
        ("open the MLflow UI", ui_command(study)),
        ("open the report", str(_short(study.home / "report.html"))),
        ("see where it stands", command("status", file)),
        ("search on", f"raise search.rounds in {file}, then {command('run', file)}"),
        ("use your own text", "mixopt corpus build sources.yaml corpus (README, “Your own text”)"),
        ("", "mixopt init study.yaml --corpus corpus, then mixopt run study.yaml"),
    ]
    if looks is not None and not looks.left:
        note = "no look is left (select.looks): a further verdict cannot promote"
        rows.insert(4, ("", note))
    for what, line in rows:  # never folded, so that they can be copied
        console.print(styled((f"{what:<20}", "dim"), f" {line}"), soft_wrap=True)


def _print_spent(trials: Sequence[Trial], promotion: Mapping[str, Any], console: Console) -> None:
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
    if promotion:
        line += (
            f"; promotion: {count(promotion['tokens'])} tokens, "
            f"{duration(promotion['device_seconds'])}"
        )
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
