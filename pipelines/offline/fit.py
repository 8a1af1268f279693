"""`mixopt fit`: a surrogate of finished runs, how good it is, and the mixture that it proposes.

mixopt fit --ratios ratios.csv --metrics metrics.csv --out fit
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from mixopt import surrogates
from mixopt.core.errors import RunsError
from mixopt.core.formatting import plus_minus
from mixopt.core.objective import Objective
from mixopt.core.trials import Fidelity, TrialTable
from mixopt.io import files
from mixopt.io.csv_files import csv_bytes
from mixopt.io.json_values import finite
from mixopt.offline.fidelity_words import said, target_fidelity, unnamed
from mixopt.offline.objective_words import objective_of, refuse_mixed_scales
from mixopt.offline.priors import read_space
from mixopt.offline.runs import Runs, read_runs
from mixopt.pipelines.offline import findings
from mixopt.pipelines.offline.findings import Findings
from mixopt.pipelines.offline.fit_report import aligned, binding, headline, render, shown, title
from mixopt.pipelines.offline.fitted import RECORD, TABLE, Fitted, begin, record_of, table_bytes
from mixopt.pipelines.offline.outputs import FOLDER, writable
from mixopt.pipelines.views.console import make_console, make_error_console, styled
from mixopt.plots.fit import short
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.auto import Auto
from mixopt.surrogates.base import FEWEST_TRIALS
from mixopt.surrogates.diagnostics import NORMAL_90, OBJECTIVE, Choice, Score, chained

NARROW = 32  # characters of a name that four columns of predictions leave room for
MOST_ROWS = 24  # of a table on the terminal; the files hold all


def fit_runs(
    ratios: Path,
    metrics: Path,
    out: Path,
    *,
    priors: Path | None = None,
    objective: Sequence[str] = (),
    surrogate: str = "auto",
    params: str | None = None,
    tokens: str | None = None,
    seed: int = 0,
    as_json: bool = False,
) -> None:
    """Fit, tell, and fill the folder `out`.

    Args:
        ratios: mixtures of the finished runs.
        metrics: what they measured; the same file where one holds both.
        out: folder of the fit; an earlier fit in it is replaced.
        priors: YAML with the natural mixture and constraints (see `mixopt.offline.priors`).
        objective: `metric=weight` each; the mean of all metrics if there is none.
        surrogate: registry name, or `package.module:Name`.
        params: model size to predict for, such as `60M`, and
        tokens: its training tokens; those of the largest runs if not given.
        seed: of all that is drawn.
        as_json: print one JSON object and nothing else.

    Raises:
        MixoptError: the files, the priors or the settings cannot be used.
    """
    writable(out, FOLDER)
    console = make_console()
    with make_error_console().status(styled("reading")):
        runs = read_runs(ratios, metrics)
        fitted, choice = _fit(
            runs,
            ratios,
            metrics,
            priors,
            objective,
            surrogate,
            seed,
            lambda table: target_fidelity(table, params, tokens),
        )
    with make_error_console().status(styled(f"fitting {fitted.surrogate_name}")):
        found = findings.find(fitted, choice)
    written = write(out, found, priors)
    if as_json:
        print(json.dumps(finite({**summary(found), "out": str(out), "files": written}), indent=1))
    else:
        show(console, found, out)


def _fit(
    runs: Runs,
    ratios: Path,
    metrics: Path,
    priors: Path | None,
    asked: Sequence[str],
    surrogate: str,
    seed: int,
    find_target: Callable[[TrialTable], tuple[Fidelity, list[str]]],
) -> tuple[Fitted, Choice | None]:
    """The settings with the surrogate fitted, and what it was chosen by, if it was."""
    notes = list(runs.notes)
    table = runs.table
    kinds = len(np.unique(table.weights, axis=0))
    if kinds < FEWEST_TRIALS:
        raise RunsError(
            f"runs on {kinds} mixture{'s' * (kinds > 1)} are too few to learn from",
            where=str(ratios),
            hint=f"Give runs on at least {FEWEST_TRIALS} different mixtures; "
            f"{len(table.domains) + 1} or more for {len(table.domains)} domains",
        )
    if OBJECTIVE in table.metrics:
        raise RunsError(
            f"a metric is called {OBJECTIVE!r}, as what is composed of all metrics is",
            where=f"{metrics}:1: {OBJECTIVE}",
            hint="Give the column another name",
        )
    if not asked:
        refuse_mixed_scales(table.metrics, table.final.values)
    objective, said_of_objective = objective_of(asked, table.metrics, runs.layout)
    notes += said_of_objective
    target, said_of_target = find_target(table)
    notes += said_of_target
    made = surrogates.make(surrogate, seed=seed, fidelity=target, objective=objective)
    table, objective = _modelled(table, target, made.multi_fidelity, objective, surrogate, notes)
    space, said_of_space = read_space(priors, table)
    notes += said_of_space
    choice: Choice | None = None
    made = surrogates.make(surrogate, seed=seed, fidelity=target, objective=objective)
    with reproducible(seed):
        made.fit(table)
    name = surrogate
    if isinstance(made, Auto):
        if made.chosen is None or made.choice is None:
            raise RuntimeError("a fitted Auto has chosen")
        choice, made = made.choice, made.chosen
        name = made.name
        notes.append(_why(choice, chained(table)))
    fitted = Fitted(
        table=table,
        names=runs.names,
        cost=runs.cost,
        objective=objective,
        space=space,
        target=target,
        surrogate_name=name,
        seed=seed,
        layout=runs.layout,
        notes=tuple(notes),
    )
    fitted.surrogate = made  # what make_surrogate().fit(table) would give once more
    return fitted, choice


def _modelled(
    table: TrialTable,
    target: Fidelity,
    several: bool,
    objective: Objective,
    surrogate: str,
    notes: list[str],
) -> tuple[TrialTable, Objective]:
    """The table with those metrics alone that can be modelled; the objective must keep its own."""
    there = np.ones(len(table), dtype=bool) if several else table.at(target)
    if there.sum() < FEWEST_TRIALS:
        sizes = ", ".join(
            f"{said(f)} ({int(table.at(f).sum())})" for f in table.final.fidelities[:6]
        )
        raise RunsError(
            f"{int(there.sum())} runs at {said(target)} are too few for the surrogate "
            f"{surrogate!r}, which learns from one fidelity",
            where="--model-params",
            hint=f"Choose another with --model-params and --tokens: runs were measured at {sizes}",
        )
    counts = np.isfinite(table.values[there]).sum(axis=0)
    few = [m for m, n in zip(table.metrics, counts, strict=True) if n < FEWEST_TRIALS]
    if not few:
        return table, objective
    needed = [metric for metric in objective.metrics if metric in few]
    kept = [metric for metric in objective.metrics if metric not in few]
    if needed and not kept:
        raise RunsError(
            f"{needed[0]} was measured on fewer than {FEWEST_TRIALS} runs{_at(target)}",
            hint="Measure it on more runs, or choose another objective or fidelity",
        )
    notes.append(
        f"Measured on fewer than {FEWEST_TRIALS} runs{_at(target)}, and left out: "
        f"{', '.join(few)}." + (" The objective does without." if needed else "")
    )
    table = table.with_metrics([metric for metric in table.metrics if metric not in few])
    return table, Objective({m: objective.weights[m] for m in kept}, prefix="")


def _at(fidelity: Fidelity) -> str:
    """` at 60M parameters`; nothing where the files told no sizes."""
    return "" if unnamed(fidelity) else f" at {said(fidelity)}"


def _why(choice: Choice, several: bool) -> str:
    """What the choice was made by: with several fidelities that is R² (`diagnostics.choose`)."""
    name = choice.name
    if not choice.scores:
        return f"The surrogate is {name}: too few runs to compare several."
    measure = "R²" if several else "rank correlation"
    values = {other: s.r2 if several else s.spearman for other, s in choice.scores.items()}
    others = ", ".join(f"{other} {value:.3f}" for other, value in values.items() if other != name)
    return (
        f"The surrogate {name} foretold held-out runs best: {measure} {values[name]:.3f}"
        + (f" ({others})" if others else "")
        + (f", by fits to {choice.learned} runs each." if choice.held_out is None else ".")
    )


def summary(found: Findings) -> dict[str, Any]:
    """All that was found, as JSON-able values: `fit.json` and what --json prints."""
    scores = {} if found.held_out is None else found.held_out.scores
    return {
        **record_of(found.fitted),
        "notes": list(found.notes),
        "headline": headline(found),
        "compared": {name: findings.score_values(s) for name, s in found.compared.items()},
        "diagnostics": {name: findings.score_values(s) for name, s in scores.items()},
        **findings.mixture_values(found),
    }


def write(folder: Path, found: Findings, priors: Path | None) -> list[str]:
    """Fill `folder`; returns the names of the files.

    Raises:
        RunsError: it holds a file of one of these names that no earlier fit wrote.
    """
    told = summary(found)
    contents = {
        TABLE: table_bytes(found.fitted),
        "diagnostics.csv": _csv(findings.diagnostics_frame(found)),
        "out_of_fold.csv": _csv(findings.out_of_fold_frame(found)),
        "effects.csv": _csv(findings.effects_frame(found)),
        "mixture.csv": _csv(findings.mixture_frame(found)),
        "mixture.json": _json(findings.mixture_values(found)),
        "report.html": render(found, folder).encode(),
    }
    if priors is not None:
        contents["priors.yaml"] = priors.read_bytes()
    contents[RECORD] = _json(told)  # last: it says that the fit is whole
    begin(folder, list(dict.fromkeys([*contents, "priors.yaml"])))
    for name, data in contents.items():
        files.write_bytes(folder / name, data)
    return list(contents)


def show(console: Console, found: Findings, out: Path) -> None:
    """What was found, for a person at a terminal."""
    console.print(headline(found), style="bold")
    console.print(_mixture_table(found))
    for line in binding(found):
        console.print(styled(("binds", "yellow"), f" {line}"))
    if found.held_out is not None:
        console.print(_score_table("held-out runs", found.held_out.scores))
    if len(found.compared) > 1:
        console.print(_score_table("surrogate, by the objective", found.compared))
    for note in found.notes:
        console.print(f"· {note}")
    console.print(styled((str(out / "report.html"), "bold"), " shows all of this"))


def _mixture_table(found: Findings) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = list(shown(found))
    table.add_column("", overflow="fold", max_width=48)
    for name in names:
        table.add_column(title(name), justify="right", no_wrap=True)
    order = np.argsort(-found.best.mixture.array, kind="stable").tolist()
    for j in order[:MOST_ROWS]:
        weights = [f"{found.mixtures[name].weights[j]:.1%}" for name in names]
        table.add_row(found.fitted.domains[j], *weights)
    if len(order) > MOST_ROWS:
        table.add_row(f"and {len(order) - MOST_ROWS} more", *[""] * len(names))
    table.add_row("", *[""] * len(names))
    metrics = list(found.fitted.metrics)
    if max(map(len, metrics)) > NARROW:
        metrics = short(metrics)
    table.add_row("predicted mean ± half its 90 % interval", style="dim")
    labels = [*metrics, OBJECTIVE]
    for j in [len(labels) - 1, *range(min(len(labels) - 1, MOST_ROWS))]:
        cells = [
            plus_minus(found.means[i, j], NORMAL_90 * found.stds[i, j])
            for i, name in enumerate(found.mixtures)
            if name in names
        ]
        table.add_row(labels[j], *cells, style="bold" if labels[j] == OBJECTIVE else None)
    return table


def _score_table(title: str, scores: dict[str, Score]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, overflow="fold", max_width=48)
    for head in ("rank corr.", "R²", "mean error", "in 90 %", "runs"):
        table.add_column(head, justify="right", no_wrap=True)
    last = [(name, scores[name]) for name in scores if name == OBJECTIVE]
    rows = last + [(name, score) for name, score in scores.items() if name != OBJECTIVE]
    rows = rows[: MOST_ROWS + 1]
    errors = aligned([score.mae for _, score in rows])
    for (name, score), error in zip(rows, errors, strict=True):
        table.add_row(
            name,
            f"{score.spearman:.3f}",
            f"{score.r2:.3f}",
            error,
            f"{score.coverage:.0%}",
            str(score.n),
            style="bold" if name == OBJECTIVE else None,
        )
    return table


def _csv(frame: pl.DataFrame) -> bytes:
    return csv_bytes(frame.fill_nan(None))


def _json(values: Any) -> bytes:
    return (json.dumps(finite(values), indent=1, allow_nan=False) + "\n").encode()
