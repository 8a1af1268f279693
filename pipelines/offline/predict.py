"""`mixopt predict`: predict the metrics of any mixtures from a fit to finished runs.

mixopt predict fit --ratios mixtures.csv --out predictions.csv
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from mixopt.core.trials import Fidelity
from mixopt.io.csv_files import csv_bytes
from mixopt.offline.fidelity_words import fidelity_text
from mixopt.offline.runs import Mixtures, read_mixtures
from mixopt.pipelines.offline.fitted import Fitted, open_fit
from mixopt.pipelines.offline.outputs import FILE, writable, write
from mixopt.pipelines.views.console import make_console, make_error_console, styled
from mixopt.pipelines.views.json_output import print_json
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.scoring import OBJECTIVE


@dataclass(frozen=True)
class Predictions:
    """Predictions for one run of each of n mixtures.

    Attributes:
        mean: (n, q) metrics.
        std: (n, q) standard deviations of a run: of the mixture's mean and of the noise together.
        objective_mean: (n,) objective, as people read it.
        objective_std: (n,) its standard deviation for a run.
        notes: notes for the user, a sentence each.
    """

    mean: np.ndarray
    std: np.ndarray
    objective_mean: np.ndarray
    objective_std: np.ndarray
    notes: tuple[str, ...]


def predict_runs(
    folder: Path, ratios: Path, out: Path, *, plugin: str | None = None, as_json: bool = False
) -> None:
    """Predict the mixtures of the CSV file `ratios` with the fit in `folder`, into `out`.

    `out` has the rows of `ratios` in their order: the column that names the run, `<metric>_mean`
    and `<metric>_std` of each metric, `objective_mean` and `objective_std`. The 90 %
    interval of a run is mean ± 1.645 std.

    Args:
        folder: of `mixopt fit`.
        ratios: a column per domain; `model_params` and `tokens` ask for fidelities.
        out: the CSV file to write.
        plugin: surrogate outside mixopt that the fit may name, `package.module:Name`.
        as_json: print one JSON object and nothing else.

    Raises:
        RunsError: there is no fit in the folder, or the mixtures are invalid.
    """
    writable(out, FILE)
    fitted = open_fit(folder, plugin)
    asked = read_mixtures(ratios, fitted.domains)
    with make_error_console().status(styled(f"fitting {fitted.surrogate_name}")):
        found = predict(fitted, asked)
    frame = predictions_frame(fitted, asked, found)
    write(out, csv_bytes(frame))
    if as_json:
        rows = frame.to_dicts()
        higher = fitted.objective.sign == -1
        values = {"out": str(out), "notes": list(found.notes), "higher_is_better": higher}
        print_json({**values, "rows": rows})
        return
    console = make_console()
    for note in found.notes:
        console.print(f"· {note}")
    sign = fitted.objective.sign
    best, most = int(np.argmin(sign * found.objective_mean)), "lowest" if sign == 1 else "highest"
    console.print(
        styled(
            f"{len(asked.names)} mixture{'s' * (len(asked.names) > 1)} predicted into ",
            (str(out), "bold"),
            f"; the {most} objective is {found.objective_mean[best]:.4f} (run {asked.names[best]})",
        )
    )


def predict(fitted: Fitted, asked: Mixtures) -> Predictions:
    """Predictions of `fitted` for a run of each mixture, at the fidelity asked for.

    A surrogate of one fidelity predicts at that one, with a note.
    """
    notes = list(asked.notes)
    n, q = len(asked.names), len(fitted.metrics)
    mean, std = np.full((n, q), np.nan), np.full((n, q), np.nan)
    composed, spread = np.full(n, np.nan), np.full(n, np.nan)
    for fidelity, rows in _by_fidelity(fitted, asked, notes).items():
        with reproducible(fitted.seed):
            prediction = fitted.surrogate.predict(asked.weights[rows], fidelity)
        columns = [prediction.metrics.index(metric) for metric in fitted.metrics]
        # of a run and not of the mean of many, because users compare it with their own run
        deviation = np.hypot(prediction.std, np.nan_to_num(prediction.noise))
        mean[rows], std[rows] = prediction.mean[:, columns], deviation[:, columns]
        composed[rows], spread[rows] = fitted.objective.compose(
            prediction.mean, deviation, prediction.metrics, prediction.correlation
        )
    return Predictions(mean, std, fitted.objective.sign * composed, spread, tuple(notes))


def predictions_frame(fitted: Fitted, asked: Mixtures, found: Predictions) -> pl.DataFrame:
    """The run's name, then mean and std of each metric and of the objective."""
    columns: dict[str, list[str] | np.ndarray] = {asked.column: list(asked.names)}
    for j, metric in enumerate(fitted.metrics):
        columns[f"{metric}_mean"] = found.mean[:, j]
        columns[f"{metric}_std"] = found.std[:, j]
    columns[f"{OBJECTIVE}_mean"] = found.objective_mean
    columns[f"{OBJECTIVE}_std"] = found.objective_std
    return pl.DataFrame(columns)


def _by_fidelity(
    fitted: Fitted, asked: Mixtures, notes: list[str]
) -> dict[Fidelity | None, np.ndarray]:
    """Rows by the fidelity to predict at; None is the target of the fit."""
    n, target = len(asked.names), fitted.target
    everything = np.arange(n)
    if asked.params is None and asked.tokens is None:
        return {None: everything}
    params = np.full(n, float(target.params)) if asked.params is None else asked.params
    tokens = _longest(fitted, params) if asked.tokens is None else asked.tokens
    pairs = np.stack([params, tokens], axis=1)
    if not fitted.surrogate.multi_fidelity:
        other = int((pairs != [target.params, target.tokens]).any(axis=1).sum())
        if other:
            notes.append(
                f"WARNING: all mixtures are predicted at {fidelity_text(target)}, though {other} "
                f"of {n} ask for another fidelity: {fitted.surrogate_name!r} models one. Fit runs "
                "of several fidelities to predict at several."
            )
        return {None: everything}
    kinds, group = np.unique(pairs, axis=0, return_inverse=True)
    notes += _beyond(fitted, kinds)
    return {
        Fidelity("", round(p), round(t)): np.flatnonzero(group.ravel() == k)
        for k, (p, t) in enumerate(kinds.tolist())
    }


def _beyond(fitted: Fitted, kinds: np.ndarray) -> list[str]:
    """A note on those of `kinds` (k, 2) that no run was measured at."""
    measured = {(f.params, f.tokens) for f in fitted.table.fidelities}
    asked = [Fidelity("", round(p), round(t)) for p, t in kinds.tolist()]
    new = [fidelity_text(f) for f in asked if (f.params, f.tokens) not in measured]
    if not new:
        return []
    return [f"No run was measured at {'; '.join(new)}: those predictions extrapolate."]


def _longest(fitted: Fitted, params: np.ndarray) -> np.ndarray:
    """(n,) the most tokens of any run of each size; the target's for a size without runs."""
    final = fitted.table.final
    most = {
        size: float(final.tokens[final.params == size].max()) for size in set(final.params.tolist())
    }
    return np.array([most.get(size, float(fitted.target.tokens)) for size in params.tolist()])
