"""`mixopt.fit`: what `mixopt fit` finds, in a notebook or a script, without a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from mixopt.api.opened import Opened
from mixopt.core.errors import MixoptError, SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.io.csv_files import csv_bytes
from mixopt.offline.fidelity_words import target_fidelity
from mixopt.offline.runs import read_runs
from mixopt.pipelines.offline import arguments, findings
from mixopt.pipelines.offline.arguments import in_python
from mixopt.pipelines.offline.findings import Findings
from mixopt.pipelines.offline.fit import model_runs
from mixopt.pipelines.offline.fitted import Fitted
from mixopt.search.optimum import Recommendation
from mixopt.surrogates.base import Surrogate
from mixopt.surrogates.reliability import Reliability
from mixopt.surrogates.scoring import Choice, OutOfFold

if TYPE_CHECKING:
    import plotly.graph_objects as go

Table = str | Path | pl.DataFrame


class OpenFit(Opened):
    """Finished runs and the surrogate that was fitted to them. Made by `mixopt.fit`."""

    def __init__(self, fitted: Fitted, choice: Choice | None) -> None:
        self.fitted = fitted
        """The runs as they were used, and all settings of the fit."""
        self._choice = choice

    def __repr__(self) -> str:
        final = self.fitted.table.final
        learned = (
            final if self._model().multi_fidelity else final.select(final.at(self.fitted.target))
        )
        return f"<fit of {self.fitted.surrogate_name} to {len(learned)} runs>"

    @property
    def objective(self) -> Objective:
        """Over the metrics as the tables name them; lower is better."""
        return self.fitted.objective

    @property
    def space(self) -> MixtureSpace:
        """Where the mixture may lie, as the priors or the runs have it."""
        return self.fitted.space

    @property
    def notes(self) -> tuple[str, ...]:
        """What was detected, renormalised, dropped or filled in, and other remarks, each a line.

        Remarks on the optimum and on the held-out runs are among them: the first access makes both.
        """
        return self.found.notes

    @cached_property
    def trials(self) -> pl.DataFrame:
        """A row per run, with what it measured last.

        Columns: `run`, `params`, `tokens`, `seed`, `mixture.<domain>`, `objective`, a column per
        metric. Params and tokens are 1 where the tables do not tell them.
        """
        last = self.curves.group_by("curve", maintain_order=True).tail(1)
        return last.drop("curve")

    @cached_property
    def curves(self) -> pl.DataFrame:
        """A row per row of the tables: several of a run make its curve, by tokens.

        Columns: as of `trials`, with `curve`, which numbers the runs.
        """
        table = self.fitted.table
        columns: dict[str, Any] = {
            "curve": table.runs,
            "run": list(self.fitted.names),
            "params": table.params,
            "tokens": table.tokens,
            "seed": table.seeds,
        }
        columns |= {f"mixture.{d}": table.weights[:, j] for j, d in enumerate(table.domains)}
        columns["objective"] = self.objective.shown.of_table(table)
        columns |= {metric: table.values[:, j] for j, metric in enumerate(table.metrics)}
        return pl.DataFrame(columns).fill_nan(None).sort("curve", "tokens", maintain_order=True)

    @cached_property
    def found(self) -> Findings:
        """All that `mixopt fit` tells: mixtures, predictions, effects of domains, scores."""
        found = findings.find(self.fitted, self._choice)
        return dataclasses.replace(found, notes=tuple(map(in_python, found.notes)))

    @property
    def reliability(self) -> dict[str, Reliability]:
        """See `Opened.reliability`; from repeats at the predicted fidelity."""
        return self.found.reliability

    @property
    def verdict(self) -> None:
        """None: of finished runs nothing is selected."""
        return None

    @property
    def promotion(self) -> None:
        """None: of finished runs nothing is promoted."""
        return None

    @property
    def plots(self) -> FitPlots:
        """The figures of this fit."""
        return FitPlots(self.found)

    def optimum(self) -> Recommendation:
        """See `Opened.optimum`."""
        return self.found.best

    def out_of_fold(self) -> OutOfFold:
        """See `Opened.out_of_fold`; of the runs at the predicted fidelity."""
        if self.found.held_out is None:
            raise SurrogateError(
                "the runs are too few to hold some out", hint="Give runs on more mixtures"
            )
        return self.found.held_out

    def _model(self) -> Surrogate:
        return self.fitted.surrogate

    def _domains(self) -> tuple[str, ...]:
        return self.fitted.domains


class FitPlots:
    """Figures by plotly of a fit to finished runs.

    Args:
        found: that they show.
    """

    def __init__(self, found: Findings) -> None:
        self._found = found

    def surrogate(self) -> go.Figure:
        """Out-of-fold predictions of the objective against what the runs measured.

        Raises:
            SurrogateError: the runs are too few to hold some out.
        """
        from mixopt.plots import fit as plots

        found = self._found
        if found.held_out is None:
            raise SurrogateError(
                "the runs are too few to hold some out", hint="Give runs on more mixtures"
            )
        names, known = found.held_out_names, found.reliability
        return plots.held_out(found.held_out, None, names, "Objective", known)

    def mixtures(self) -> go.Figure:
        """Weights of the natural, the best observed and the proposed mixture."""
        from mixopt.plots import mixtures

        space = self._found.fitted.space
        available, budget = space.available_tokens, space.budget_tokens
        return mixtures.mixture_bars(self._found.mixtures, available=available, budget=budget)

    def effects(self) -> go.Figure:
        """What 5 points more of each domain do to each metric."""
        from mixopt.plots import fit as plots

        found = self._found
        fitted = found.fitted
        values = np.column_stack([fitted.table.values, fitted.objective.of_table(fitted.table)])
        better = [1.0 if fitted.objective.weights.get(m, 0) < 0 else -1.0 for m in fitted.metrics]
        better.append(-1.0 * fitted.objective.sign)
        return plots.effect_map(found.effects, np.nanstd(values, axis=0), np.array(better))


def fit(
    ratios: Table,
    metrics: Table | None = None,
    *,
    priors: str | Path | None = None,
    objective: Mapping[str, float] | None = None,
    surrogate: str = "auto",
    params: str | float | None = None,
    tokens: str | float | None = None,
    seed: int = 0,
) -> OpenFit:
    """A surrogate of finished runs, and what it recommends: `mixopt fit` from Python.

    Args:
        ratios: mixtures of the runs, a row each: the path of a CSV file, or a polars frame. A
            column `run`, and a column of weights per domain.
        metrics: what they measured, likewise: a column `run`, and a column per metric. None where
            the first table holds both: a study's `.trials`, or a table whose columns are called
            `ratio_<domain>` and `metric_<name>` or are laid out as docs/finished-runs.md lists.
            One frame without such names makes two: `fit(frame.select("run", "web", "code"),
            frame.select("run", "prose"))`.
        priors: YAML file with the natural mixture and constraints (docs/finished-runs.md).
        objective: metric → weight, negative for a metric to maximise. If None, the mean of all
            metrics but those that repeats show to be mostly noise; those that are scores by their
            names (`acc`, `f1`) are maximised. The first `notes` of the fit tell which are.
        surrogate: registry name, `auto`, or `package.module:Name`.
        params: model size to predict for, such as `60M`; None for that of the most expensive runs
            (parameters times tokens).
        tokens: training tokens to predict for, such as `1B`; None for those of the most expensive
            runs, of size `params` if that is given.
        seed: of all random numbers, at least 0.

    Example:
        runs = mixopt.fit("ratios.csv", "metrics.csv", objective={"prose": 1.0})
        runs.optimum().mixture
        runs.predict({"web": 0.6, "code": 0.4})

    Raises:
        MixoptError: the tables, the priors or the settings cannot be used; of a frame the message
            names `ratios` or `metrics` with the line that the row has below its header.
    """
    arguments.check(priors, surrogate, seed)
    arguments.check_table(ratios, "ratios")
    if metrics is not None:
        arguments.check_table(metrics, "metrics")
    asked = arguments.objective_words(objective)
    size, length = arguments.count_words(params, "params"), arguments.count_words(tokens, "tokens")
    with _as_files(ratios, metrics) as (left, right):
        fitted, choice = model_runs(
            read_runs(left, right),
            left,
            right,
            None if priors is None else Path(priors),
            asked,
            surrogate,
            seed,
            lambda table: target_fidelity(table, size, length),
        )
    return OpenFit(fitted, choice)


@contextlib.contextmanager
def _as_files(ratios: Table, metrics: Table | None) -> Iterator[tuple[Path, Path]]:
    """Both tables as files: one reader checks all, and frames keep every digit in CSV."""
    with tempfile.TemporaryDirectory() as folder:
        paths: list[Path] = []
        for name, table in (("ratios", ratios), ("metrics", metrics)):
            path = Path(folder) / name
            if isinstance(table, pl.DataFrame):
                path.write_bytes(csv_bytes(table))
            elif table is not None:
                path = Path(table)
            else:
                path = paths[0]
            paths.append(path)
        try:
            yield paths[0], paths[1]
        except MixoptError as error:
            where = error.where.removeprefix(f"{folder}/")
            what, where, hint = map(in_python, (error.what, where, error.hint))
            raise type(error)(what, where=where, hint=hint) from None
