"""`mixopt fit`: fit a surrogate to finished runs, test it on held-out runs, propose a mixture.

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
from mixopt.core.intervals import NORMAL_90
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.io import files
from mixopt.io.csv_files import csv_bytes
from mixopt.io.json_values import finite
from mixopt.offline.fidelity_words import fidelity_text, target_fidelity, unnamed
from mixopt.offline.priors import read_space
from mixopt.offline.reliability import table_reliability
from mixopt.offline.runs import Runs, read_runs
from mixopt.pipelines.offline import findings
from mixopt.pipelines.offline.findings import Findings
from mixopt.pipelines.offline.fit_report import aligned, binding, headline, render, shown, title
from mixopt.pipelines.offline.fitted import RECORD, TABLE, Fitted, begin, record_of, table_bytes
from mixopt.pipelines.offline.outputs import FOLDER, writable
from mixopt.pipelines.offline.read_objective import read_objective
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.console import make_console, make_error_console, styled
from mixopt.pipelines.views.json_output import print_json
from mixopt.pipelines.views.reliability import ceiling, ceiling_of
from mixopt.plots.fit import short
from mixopt.surrogates import noise
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.auto import Auto
from mixopt.surrogates.base import FEWEST_TRIALS
from mixopt.surrogates.reliability import Reliability
from mixopt.surrogates.scoring import OBJECTIVE, Choice, Score, chained

NARROW = 32  # characters of a name beside four columns of predictions
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
    r"""Fit a surrogate to finished runs, print the results, and write them to the folder `out`.

    Args:
        ratios: mixtures of the finished runs.
        metrics: metrics of the runs; the same path where one file holds both.
        out: folder of the fit; an earlier fit in it is replaced.
        priors: YAML with the natural mixture and constraints (see `mixopt.offline.priors`).
        objective: `metric=weight` each; the mean of all reliable metrics if there is none.
        surrogate: registry name, or `package.module:Name`.
        params: model size to predict for, such as `60M`; None for that of the most
            expensive runs (parameters times tokens).
        tokens: its training tokens; None for those of the longest runs of that size.
        seed: random seed.
        as_json: print one JSON object and nothing else.

    Raises:
        MixoptError: the files, the priors or the settings are invalid.

    Example:
        >>> _ = Path("runs.csv").write_text(
        ...     "run,ratio_web,ratio_code,metric_loss\n"
        ...     + "".join(f"r{k},{k / 9},{1 - k / 9},{2 + k / 9}\n" for k in range(10))
        ... )
        >>> fit_runs(Path("runs.csv"), Path("runs.csv"), Path("fit"), surrogate="linear")
        Predicted objective 0.5... ± ... lower at the proposed mixture than at the natural one: ...
        >>> sorted(path.name for path in Path("fit").iterdir())[:3]
        ['diagnostics.csv', 'effects.csv', 'fit.json']
    """
    writable(out, FOLDER)
    console = make_console()
    with make_error_console().status(styled("reading")):
        runs = read_runs(ratios, metrics)
        fitted, choice = model_runs(
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
        print_json({**summary(found), "out": str(out), "files": written})
    else:
        show(console, found, out)


def model_runs(
    runs: Runs,
    ratios: Path,
    metrics: Path,
    priors: Path | None,
    asked: Sequence[str],
    surrogate: str,
    seed: int,
    find_target: Callable[[TrialTable], tuple[Fidelity, list[str]]],
) -> tuple[Fitted, Choice | None]:
    """The fit, and the comparison that the surrogate was chosen by; None where it was asked for."""
    table = runs.table
    kinds = len(np.unique(table.weights, axis=0))
    if kinds < FEWEST_TRIALS:
        raise RunsError(
            f"runs on {kinds} mixture{'s' * (kinds > 1)} are too few to fit",
            where=str(ratios),
            hint=f"Give runs on at least {FEWEST_TRIALS} different mixtures; "
            f"{len(table.domains) + 1} or more for {len(table.domains)} domains",
        )
    if OBJECTIVE in table.metrics:
        raise RunsError(
            f"a metric is called {OBJECTIVE!r}, which is reserved for the objective",
            where=f"{metrics}:1: {OBJECTIVE}",
            hint="Rename the column",
        )
    target, target_notes = find_target(table)
    objective, objective_notes = read_objective(asked, runs, target)
    notes = runs.notes_with(objective_notes) + target_notes
    made = surrogates.make(surrogate, seed=seed, fidelity=target, objective=objective)
    table, objective = _modelled(table, target, made.multi_fidelity, objective, surrogate, notes)
    space, space_notes = read_space(priors, table)
    notes += space_notes
    choice: Choice | None = None
    known = noise.known(type(made), table)
    made = surrogates.make(surrogate, seed=seed, fidelity=target, noise=known, objective=objective)
    with reproducible(seed):
        made.fit(table)
    name = surrogate
    if isinstance(made, Auto):
        if made.chosen is None or made.choice is None:
            raise RuntimeError("a fitted Auto has no choice")
        choice, made = made.choice, made.chosen
        name = made.name
        several = chained(table)
        reliability = {} if several else table_reliability(table, target, objective)
        notes.append(_why(choice, several, reliability.get(OBJECTIVE)))
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
    if fitted.known_noise == known:  # else `auto` chose one that takes the repeats' noise
        fitted.surrogate = made  # equal to make_surrogate().fit(table), already computed
    return fitted, choice


def _modelled(
    table: TrialTable,
    target: Fidelity,
    several: bool,
    objective: Objective,
    surrogate: str,
    notes: list[str],
) -> tuple[TrialTable, Objective]:
    """The table and objective without metrics of fewer than `FEWEST_TRIALS` runs."""
    there = np.ones(len(table), dtype=bool) if several else table.at(target)
    if there.sum() < FEWEST_TRIALS:
        sizes = ", ".join(
            f"{fidelity_text(f)} ({int(table.at(f).sum())})" for f in table.final.fidelities[:6]
        )
        raise RunsError(
            f"{int(there.sum())} runs at {fidelity_text(target)} are too few for the surrogate "
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
        f"{', '.join(few)}." + (" The objective excludes them." if needed else "")
    )
    table = table.with_metrics([metric for metric in table.metrics if metric not in few])
    return table, Objective({m: objective.weights[m] for m in kept}, prefix="")


def _at(fidelity: Fidelity) -> str:
    """` at 60M parameters`; empty where the files give no sizes."""
    return "" if unnamed(fidelity) else f" at {fidelity_text(fidelity)}"


def _why(choice: Choice, several: bool, objective: Reliability | None = None) -> str:
    """The scores that decided the choice: R² with several fidelities (`scoring.choose`).

    Beside a rank correlation stands its ceiling, by the reliability of the `objective`.
    """
    name = choice.name
    if not choice.scores:
        return f"The surrogate is {name}: too few runs to compare several."
    measure = "R²" if several else "rank correlation"
    values = {other: s.r2 if several else s.spearman for other, s in choice.scores.items()}
    others = ", ".join(f"{other} {value:.3f}" for other, value in values.items() if other != name)
    return (
        f"The surrogate {name} predicted held-out runs best: {measure} {values[name]:.3f}"
        + (f" ({others})" if others else "")
        + ("" if several or objective is None else f", ceiling {objective.ceiling:.3f}")
        + (f", by fits to {choice.learned} runs each." if choice.held_out is None else ".")
    )


def summary(found: Findings) -> dict[str, Any]:
    """All results as JSON-able values: the content of `fit.json` and of --json."""
    scores = {} if found.held_out is None else found.held_out.scores
    return {
        **record_of(found.fitted),
        "notes": list(found.notes),
        "headline": headline(found),
        "compared": {
            name: findings.score_values(score, found.of_compared)
            for name, score in found.compared.items()
        },
        "diagnostics": {
            name: findings.score_values(score, found.reliability.get(name))
            for name, score in scores.items()
        },
        "reliability": {name: it.to_json() for name, it in found.reliability.items()},
        **findings.mixture_values(found),
    }


def write(folder: Path, found: Findings, priors: Path | None) -> list[str]:
    """Write the results to `folder`; returns the names of the files.

    Raises:
        RunsError: a file of one of these names is there that no earlier fit wrote.
    """
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
    contents[RECORD] = _json(summary(found))  # last: it marks the fit as complete
    begin(folder, list(dict.fromkeys([*contents, "priors.yaml"])))
    for name, data in contents.items():
        files.write_bytes(folder / name, data)
    return list(contents)


def show(console: Console, found: Findings, out: Path) -> None:
    """Print the results on a terminal."""
    console.print(headline(found), style="bold")
    console.print(_mixture_table(found))
    for line in binding(found):
        console.print(styled(("binds", "yellow"), f" {line}"))
    if found.held_out is not None:
        known = {name: ceiling(found.reliability, name) for name in found.held_out.scores}
        console.print(_score_table("held-out runs", found.held_out.scores, known))
    if len(found.compared) > 1:
        known = dict.fromkeys(found.compared, ceiling_of(found.of_compared))
        console.print(_score_table("surrogate, by the objective", found.compared, known))
    for note in found.notes:
        console.print(f"· {note}")
    console.print(styled((str(out / "report.html"), "bold"), " has the figures"), soft_wrap=True)
    following = command("propose", out, "--out", "next.csv")
    words = f"{following} for the next mixtures to train"
    console.print(styled(("Next: ", "bold"), words), soft_wrap=True)


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
    table.add_row(f"predicted ± half the 90 % interval of {found.interval_of}", style="dim")
    labels = [*metrics, OBJECTIVE]
    for j in [len(labels) - 1, *range(min(len(labels) - 1, MOST_ROWS))]:
        cells = [
            plus_minus(found.means[i, j], NORMAL_90 * found.stds[i, j])
            for i, name in enumerate(found.mixtures)
            if name in names
        ]
        table.add_row(labels[j], *cells, style="bold" if labels[j] == OBJECTIVE else None)
    return table


def _score_table(title: str, scores: dict[str, Score], ceilings: dict[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, overflow="fold", max_width=48)
    for head in ("rank corr.", "ceiling", "R²", "mean error", "in 90 % interval", "runs"):
        table.add_column(head, justify="right", no_wrap=True)
    last = [(name, scores[name]) for name in scores if name == OBJECTIVE]
    rows = last + [(name, score) for name, score in scores.items() if name != OBJECTIVE]
    rows = rows[: MOST_ROWS + 1]
    errors = aligned([score.mae for _, score in rows])
    for (name, score), error in zip(rows, errors, strict=True):
        table.add_row(
            name,
            f"{score.spearman:.3f}",
            ceilings[name],
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
