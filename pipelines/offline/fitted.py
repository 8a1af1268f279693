"""The folder of `mixopt fit`: what it holds, and how later commands open it.

`fit.json` holds the settings, `runs.parquet` the runs that were used. Later commands fit the
surrogate again: the result is the same, and the folder depends on no version of torch.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mixopt import __version__, surrogates
from mixopt.core.errors import RunsError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import LinearConstraint, MixtureSpace
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.io import files
from mixopt.surrogates import noise
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import Surrogate

FORMAT = 1  # of fit.json and runs.parquet
MADE_BY = "mixopt fit"
RECORD, TABLE = "fit.json", "runs.parquet"
WEIGHT, METRIC = "mixture.", "metric."  # what columns of runs.parquet begin with


@dataclass
class Fitted:
    """Finished runs, and the settings of the surrogate that is fitted to them.

    Attributes:
        table: the runs, a row each, or several where a run has a curve.
        names: (n,) name of the run of each row.
        cost: (n,) cost of each row; None if the files give none.
        objective: over the metrics as the file names them; lower is better.
        space: where mixtures may lie, with the natural mixture.
        target: the fidelity that is predicted.
        surrogate_name: registry name, or `package.module:Name`.
        seed: of the surrogate and of all that follows from it.
        layout: of the files that the runs came from.
        notes: notes for the user, a sentence each.
        record: `fit.json` as it was read; empty for a fit that was not saved yet.
    """

    table: TrialTable
    names: tuple[str, ...]
    cost: np.ndarray | None
    objective: Objective
    space: MixtureSpace
    target: Fidelity
    surrogate_name: str
    seed: int = 0
    layout: str = "olmix"
    notes: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def domains(self) -> tuple[str, ...]:
        """The m domains, in the order of all weights."""
        return self.table.domains

    @property
    def metrics(self) -> tuple[str, ...]:
        """The q metrics that are predicted."""
        return self.table.metrics

    @property
    def natural(self) -> Mixture:
        """The natural mixture, from the priors or the mean of the runs."""
        return self.space.natural

    @cached_property
    def known_noise(self) -> dict[str, float]:
        """By metric, the noise of a run that the surrogate is given; see `noise.known`."""
        return noise.known(surrogates.find(self.surrogate_name), self.table)

    def make_surrogate(self) -> Surrogate:
        """A fresh surrogate of the fit's kind and settings, with measured noise, not fitted."""
        return self._make(self.known_noise)

    def make_without_noise(self) -> Surrogate:
        """The same without measured noise, for folds: some of the repeats are held out."""
        return self._make({})

    def _make(self, known: Mapping[str, float]) -> Surrogate:
        return surrogates.make(
            self.surrogate_name,
            seed=self.seed,
            fidelity=self.target,
            noise=known,
            objective=self.objective,
        )

    @cached_property
    def surrogate(self) -> Surrogate:
        """The fitted surrogate; fitted on first use."""
        with reproducible(self.seed):
            return self.make_surrogate().fit(self.table)


def open_fit(folder: Path, plugin: str | None = None) -> Fitted:
    """The fit in `folder`.

    Args:
        folder: of `mixopt fit`; it is not trusted, and imports nothing by itself.
        plugin: `package.module:Name` of a surrogate that the folder may name.

    Raises:
        RunsError: there is no finished fit in it, another version of mixopt wrote it, or it names
            a surrogate that is neither mixopt's own nor `plugin`.
    """
    path = folder / RECORD
    again = "Run `mixopt fit` with --out for this folder"
    try:
        record = json.loads(path.read_text())
    except OSError:
        raise RunsError("holds no fit", where=str(folder), hint=again) from None
    except ValueError:
        record = None
    if not isinstance(record, dict) or record.get("made_by") != MADE_BY:
        raise RunsError("was not written by `mixopt fit`", where=str(path), hint=again)
    if record.get("unfinished"):
        raise RunsError("the fit was interrupted", where=str(path), hint=again)
    if record.get("format") != FORMAT:
        raise RunsError(
            f"has format {record.get('format')}, this mixopt reads {FORMAT}",
            where=str(path),
            hint=again,
        )
    name = record.get("surrogate")
    if name not in surrogates.KNOWN and name != plugin:
        raise RunsError(
            f"names the surrogate {name!r}, which is not one of mixopt's own",
            where=str(path),
            hint=f"Check that you trust its code, then add --allow-plugin {name}",
        )
    try:
        return _fitted(record, pl.read_parquet(folder / TABLE, glob=False))
    except (OSError, pl.exceptions.PolarsError) as problem:
        raise RunsError(
            f"does not fit {RECORD}: {problem!r}", where=str(folder / TABLE), hint=again
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise RunsError(
            f"holds what `mixopt fit` does not write: {problem!r}", where=str(path), hint=again
        ) from None


def record_of(fitted: Fitted) -> dict[str, Any]:
    """The settings of a fit as JSON-able values: what `open_fit` needs besides the runs."""
    space = fitted.space
    return {
        "made_by": MADE_BY,
        "format": FORMAT,
        "version": __version__,
        "layout": fitted.layout,
        "runs": len(set(fitted.table.runs.tolist())),
        "rows": len(fitted.table),
        "domains": list(fitted.domains),
        "metrics": list(fitted.metrics),
        "objective": dict(fitted.objective.weights),
        "surrogate": fitted.surrogate_name,
        "seed": fitted.seed,
        "fidelity": {"model_params": fitted.target.params, "tokens": fitted.target.tokens},
        "natural": fitted.natural.as_dict(),
        "space": {
            "lower": dict(space.lower),
            "upper": dict(space.upper),
            "available_tokens": dict(space.available_tokens) if space.available_tokens else None,
            "max_epochs": space.max_epochs,
            "budget": space.budget_tokens,
            "linear": [
                {"weights": dict(c.coefficients), "at_most": c.at_most} for c in space.linear
            ],
            "kl_penalty": space.kl_penalty,
        },
        "notes": list(fitted.notes),
    }


def table_bytes(fitted: Fitted) -> bytes:
    """The runs as Parquet, exactly."""
    table = fitted.table
    columns: dict[str, Any] = {
        "run": list(fitted.names),
        "curve": table.runs,
        "model_params": table.params,
        "tokens": table.tokens,
        "seed": table.seeds,
    }
    if fitted.cost is not None:
        columns["cost"] = fitted.cost
    columns |= {WEIGHT + name: table.weights[:, j] for j, name in enumerate(table.domains)}
    columns |= {METRIC + name: table.values[:, j] for j, name in enumerate(table.metrics)}
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_parquet(buffer)
    return buffer.getvalue()


def begin(folder: Path, names: list[str]) -> None:
    """Make `folder` ours to write `names` into.

    The record says that the fit is unfinished until the new one is written last, so that a crash
    in between leaves no mixture of two fits that looks whole.

    Raises:
        RunsError: one of `names` is there and was not written by an earlier fit.
    """
    path = folder / RECORD
    ours = False
    if path.exists():
        try:
            values = json.loads(path.read_text())
            ours = isinstance(values, dict) and values.get("made_by") == MADE_BY
        except (OSError, ValueError):
            ours = False
    if folder.exists() and not folder.is_dir():
        raise RunsError("is a file", where=str(folder), hint="Name a folder with --out")
    foreign = [name for name in names if (folder / name).exists()]
    if foreign and not ours:
        raise RunsError(
            f"holds {foreign[0]} that no earlier fit wrote",
            where=str(folder),
            hint="Name another folder with --out, or move that file",
        )
    files.write_json(path, {"made_by": MADE_BY, "format": FORMAT, "unfinished": True})
    for name in foreign:
        if name != RECORD:
            (folder / name).unlink()


def _fitted(record: Mapping[str, Any], frame: pl.DataFrame) -> Fitted:
    domains, metrics = tuple(record["domains"]), tuple(record["metrics"])
    table = TrialTable(
        domains=domains,
        metrics=metrics,
        weights=np.stack([frame[WEIGHT + name].to_numpy() for name in domains], axis=1),
        values=np.stack([frame[METRIC + name].to_numpy() for name in metrics], axis=1),
        params=frame["model_params"].to_numpy(),
        tokens=frame["tokens"].to_numpy(),
        seeds=frame["seed"].to_numpy(),
        runs=frame["curve"].to_numpy(),
    )
    bounds = record["space"]
    space = MixtureSpace(
        domains,
        Mixture.exact(record["natural"]),
        lower=bounds["lower"],
        upper=bounds["upper"],
        available_tokens=bounds["available_tokens"],
        max_epochs=bounds["max_epochs"],
        budget_tokens=bounds["budget"],
        linear=tuple(LinearConstraint(c["weights"], c["at_most"]) for c in bounds["linear"]),
        kl_penalty=bounds["kl_penalty"],
    )
    fidelity = record["fidelity"]
    return Fitted(
        table=table,
        names=tuple(frame["run"].to_list()),
        cost=frame["cost"].to_numpy() if "cost" in frame.columns else None,
        objective=Objective(record["objective"], prefix=""),
        space=space,
        target=Fidelity("", fidelity["model_params"], fidelity["tokens"]),
        surrogate_name=record["surrogate"],
        seed=record["seed"],
        layout=record["layout"],
        notes=tuple(record["notes"]),
        record=record,
    )
