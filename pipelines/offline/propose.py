"""`mixopt propose`: the next mixtures to train, from a fit of finished runs.

    mixopt propose fit -n 16 --bounds web=0.1:0.5 --linear "web + code <= 0.7" --out next.csv

`mixopt predict` and `mixopt fit` read the CSV as ratios: train its mixtures, add their metrics to
the metrics file, and fit again.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from mixopt.core.counts import parse_count
from mixopt.core.errors import MixtureError, StudyError
from mixopt.core.formatting import count, with_error
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import Fidelity, Trial, TrialSpec
from mixopt.io.csv_files import csv_bytes
from mixopt.offline.as_trials import pending_trials, trials_of
from mixopt.offline.constraint_words import available_of, bounds_of, linear_of
from mixopt.offline.priors import SAFE_EPOCHS
from mixopt.offline.runs import read_mixtures
from mixopt.pipelines.offline.fitted import Fitted, open_fit
from mixopt.pipelines.offline.outputs import FILE, writable, write
from mixopt.pipelines.views.console import make_console, make_error_console, styled
from mixopt.pipelines.views.json_output import print_json
from mixopt.pipelines.views.wording import better
from mixopt.search import proposers
from mixopt.search.optimum import Recommendation, recommend
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import Surrogate

FORMAT = 1  # of what --json prints
ROUNDING = 1e-12  # by how much a proposed mixture may break a constraint
SHOWN_DOMAINS = 4  # weights in a row on the terminal; the file has all


@dataclass(frozen=True)
class Constraints:
    """Constraints of the command line, as text, beyond those of the fit."""

    bounds: Sequence[str] = ()
    budget: str | None = None
    max_epochs: float | None = None
    available: Sequence[str] = ()
    linear: Sequence[str] = ()
    kl: float | None = None

    def on(self, space: MixtureSpace) -> tuple[MixtureSpace, list[str]]:
        """`space` under these constraints, and notes for the user.

        A bound or a token count given here replaces that of the fit; linear constraints are added.

        Raises:
            StudyError: a text cannot be parsed.
            MixtureError: no mixture satisfies all constraints; it names those that clash.
        """
        domains, notes = space.domains, []
        lower, upper = bounds_of(self.bounds, domains)
        bounded = {*lower, *upper}
        budget = space.budget_tokens if self.budget is None else _budget(self.budget)
        available = {**(space.available_tokens or {}), **available_of(self.available, domains)}
        epochs = space.max_epochs if self.max_epochs is None else self.max_epochs
        if epochs is not None and not 0 < epochs < math.inf:
            raise StudyError(f"{epochs:g} is not a number above 0", where="--max-epochs")
        if self.kl is not None and not 0 <= self.kl < math.inf:
            raise StudyError(f"{self.kl:g} is not a number of at least 0", where="--kl")
        if epochs is None and budget and available:
            epochs = SAFE_EPOCHS
            notes.append(
                f"A domain may be seen at most {epochs:g} times (change it with --max-epochs)."
            )
        if self.budget is not None and not available:
            notes.append(
                "--tokens constrains nothing without --available: add the tokens of each domain."
            )
        if self.available and not budget:
            notes.append(
                "--available constrains nothing without --tokens: add the budget of the run."
            )
        linear = (*space.linear, *(linear_of(text, domains) for text in self.linear))
        try:
            changed = dataclasses.replace(
                space,
                lower={**{d: b for d, b in space.lower.items() if d not in bounded}, **lower},
                upper={**{d: b for d, b in space.upper.items() if d not in bounded}, **upper},
                available_tokens=available or None,
                max_epochs=epochs,
                budget_tokens=budget,
                linear=linear,
                kl_penalty=space.kl_penalty if self.kl is None else self.kl,
            )
        except MixtureError as error:
            key, _, domain = error.where.partition(".")
            key = "bounds" if key in ("lower", "upper") else key
            where = f"--{key.replace('_', '-')} {domain}".rstrip()
            raise MixtureError(error.what, where=where, hint=error.hint) from error
        return changed, notes


@dataclass(frozen=True)
class Proposed:
    """The next mixtures, with their predictions.

    Attributes:
        specs: n trial specs, in the order in which the proposer selected them.
        mean: (n,) predicted objective at the target, as people read it.
        std: (n,) its standard deviation for a run.
        best: index of the best mean.
        best_binding: constraints that bind there, a sentence each.
        optimum: the surrogate's optimum in the space, and without constraints.
        optimum_std: standard deviation for a run at the optimum in the space.
    """

    specs: list[TrialSpec]
    mean: np.ndarray
    std: np.ndarray
    best: int
    best_binding: list[str]
    optimum: Recommendation
    optimum_std: float

    @property
    def names(self) -> list[str]:
        """Names of their runs: `p0001`, `p0002` and so on."""
        return [f"p{number:04d}" for number in range(1, len(self.specs) + 1)]


def show_proposal(
    folder: Path,
    n: int,
    out: Path,
    *,
    constraints: Constraints = Constraints(),
    proposer: str = "bayes",
    pending: Path | None = None,
    seed: int | None = None,
    plugin: str | None = None,
    as_json: bool = False,
) -> None:
    """Propose `n` mixtures, write them to `out`, and print their predictions.

    Args:
        folder: of `mixopt fit`.
        n: how many.
        out: CSV to write.
        constraints: beyond those of the fit.
        proposer: registry name, or `package.module:Name`.
        pending: CSV of mixtures that are being trained and have no metrics yet.
        seed: of the proposer; the fit's if None.
        plugin: surrogate outside mixopt that the fit may name, `package.module:Name`.
        as_json: print one JSON object instead of the table.

    Raises:
        MixoptError: there is no fit, the constraints clash, or no proposal can be made.
    """
    if n < 1:
        raise StudyError(f"{n} mixtures were asked for", where="-n", hint="Ask for at least 1")
    writable(out, FILE)
    fitted = open_fit(folder, plugin)
    space, notes = constraints.on(fitted.space)
    fitted.space = space
    trials = trials_of(fitted.table, fitted.cost)
    if pending is not None:
        waiting, pending_notes = _pending(pending, fitted, len(trials))
        trials += waiting
        notes += pending_notes
    with make_error_console().status(styled(f"fitting {fitted.surrogate_name}, proposing")):
        proposed = propose(fitted, trials, n, proposer, fitted.seed if seed is None else seed)
    if len(proposed.specs) < n:
        notes.append(f"{proposer} found only {len(proposed.specs)} mixtures to propose.")
    write(out, _csv(proposed, fitted))
    if as_json:
        values = {**_values(proposed, fitted, proposer, notes), "out": str(out)}
        print_json(values)
    else:
        _show(make_console(), proposed, fitted, proposer, notes, out)


def propose(fitted: Fitted, trials: Sequence[Trial], n: int, name: str, seed: int) -> Proposed:
    """The next mixtures of proposer `name`; each lies in the space to rounding.

    Args:
        fitted: the runs and the space.
        trials: the runs as trials, and those that are pending.
        n: how many.
        name: registry name of the proposer, or `package.module:Name`.
        seed: of the proposer.

    Raises:
        StudyError: there is no such proposer.
        MixtureError: the space holds too few mixtures, or a mixture lies outside it.
        SurrogateError: there are too few runs to fit.
    """
    space, objective = fitted.space, fitted.objective
    maker = proposers.make(
        name,
        space=space,
        objective=objective,
        fidelity=fitted.target,
        surrogate=fitted.make_surrogate,
        seed=seed,
    )
    with reproducible(fitted.seed):
        surrogate = maker.fits.learn(fitted.make_surrogate(), fitted.table)
    specs = [
        dataclasses.replace(spec, mixture=exact(space, spec.mixture, name))
        for spec in maker.propose(trials, n)
    ]
    weights = np.array([spec.mixture.weights for spec in specs])
    mean, std = predicted_objective(surrogate, objective, weights)
    best = int(np.argmin(mean))
    optimum = recommend(surrogate, objective, space, fitted.seed)
    _, optimum_std = predicted_objective(surrogate, objective, optimum.mixture.array[None])
    return Proposed(
        specs=specs,
        mean=objective.sign * mean,
        std=std,
        best=best,
        best_binding=space.binding(specs[best].mixture),
        optimum=optimum.turned(objective.sign),
        optimum_std=float(optimum_std[0]),
    )


def exact(space: MixtureSpace, mixture: Mixture, proposer: str) -> Mixture:
    """`mixture`, projected onto `space` if it lies outside by rounding.

    Raises:
        MixtureError: it lies farther outside.
    """
    box = space.polytope
    if not space.contains(mixture):
        over = float(box.excess(mixture.array[None])[0])
        raise MixtureError(f"a mixture breaks a constraint by {over:.2g}", where=proposer)
    if box.excess(mixture.array[None])[0] <= ROUNDING:
        return mixture
    inside = box.project(mixture.array[None], ROUNDING)[0]
    if box.excess(inside[None])[0] > ROUNDING:
        raise MixtureError("a mixture could not be moved into the space", where=proposer)
    return Mixture(space.domains, tuple(inside.tolist()))


def predicted_objective(
    surrogate: Surrogate, objective: Objective, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted objective (n,) of `weights` (n, m), and its standard deviation for a run."""
    prediction = surrogate.predict(weights)
    std = np.hypot(prediction.std, np.nan_to_num(prediction.noise))
    return objective.compose(prediction.mean, std, prediction.metrics, prediction.correlation)


def _pending(path: Path, fitted: Fitted, first: int) -> tuple[list[Trial], list[str]]:
    found = read_mixtures(path, fitted.domains)
    size = (
        np.full(len(found.weights), fitted.target.params) if found.params is None else found.params
    )
    length = (
        np.full(len(found.weights), fitted.target.tokens) if found.tokens is None else found.tokens
    )
    fidelities = [
        Fidelity("", round(p), round(t))
        for p, t in zip(size.tolist(), length.tolist(), strict=True)
    ]
    waiting = pending_trials(fitted.domains, found.weights, fidelities, first)
    return waiting, [*found.notes, f"{len(waiting)} mixtures are pending and not proposed again."]


def _budget(text: str) -> int:
    value = parse_count(text)
    if not value:
        raise StudyError(
            f"{text!r} is not a count of tokens", where="--tokens", hint="Write 20B or 2e10"
        )
    return round(value)


def _sized(proposed: Proposed, fitted: Fitted) -> dict[str, list[int]]:
    """Columns of fidelity for the file: those that the runs have, or that differ from 1."""
    chosen = [spec.fidelity for spec in proposed.specs]
    columns = {
        "model_params": ([f.params for f in chosen], fitted.table.params),
        "tokens": ([f.tokens for f in chosen], fitted.table.tokens),
    }
    return {
        name: values
        for name, (values, measured) in columns.items()
        if not (measured == 1).all() or set(values) != {1}
    }


def _csv(proposed: Proposed, fitted: Fitted) -> bytes:
    weights = np.array([spec.mixture.weights for spec in proposed.specs])
    columns: dict[str, Any] = {"run": proposed.names}
    # all digits, so that what is feasible here is feasible when it is read again
    columns |= {name: weights[:, j] for j, name in enumerate(fitted.domains)}
    columns |= _sized(proposed, fitted)
    return csv_bytes(pl.DataFrame(columns))


def _values(
    proposed: Proposed, fitted: Fitted, proposer: str, notes: Sequence[str]
) -> dict[str, Any]:
    optimum = proposed.optimum
    sizes = _sized(proposed, fitted)
    return {
        "format": FORMAT,
        "proposer": proposer,
        "surrogate": fitted.surrogate_name,
        "seed": fitted.seed,
        "objective": dict(fitted.objective.weights),
        "higher_is_better": fitted.objective.sign == -1,
        "mixtures": [
            {
                "run": name,
                "mixture": spec.mixture.as_dict(),
                **{column: values[k] for column, values in sizes.items()},
                "objective_mean": float(proposed.mean[k]),
                "objective_std": float(proposed.std[k]),
            }
            for k, (name, spec) in enumerate(zip(proposed.names, proposed.specs, strict=True))
        ],
        "best": proposed.names[proposed.best],
        "best_binding": proposed.best_binding,
        "optimum": {
            "mixture": optimum.mixture.as_dict(),
            "objective_mean": optimum.mean,
            "objective_std": proposed.optimum_std,
            "interval": list(optimum.interval),
            "interval_of": "a run" if optimum.of_run else "the mean over runs",
            "binding": list(optimum.binding),
            "prices": dict(optimum.prices),
            "kl": optimum.kl,
            "unconstrained": optimum.unconstrained.as_dict(),
            "unconstrained_mean": optimum.unconstrained_mean,
        },
        "notes": list(notes),
    }


def _show(
    console: Console,
    proposed: Proposed,
    fitted: Fitted,
    proposer: str,
    notes: Sequence[str],
    out: Path,
) -> None:
    sizes = _sized(proposed, fitted)
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    console.print(
        f"{len(proposed.specs)} mixture{'s' * (len(proposed.specs) > 1)} by {proposer}, "
        f"with the predicted objective ({better(fitted.objective)}) ± the standard deviation of a "
        "run:"
    )
    values = [with_error(m, s) for m, s in zip(proposed.mean, proposed.std, strict=True)]
    widest = max(len("objective"), *map(len, values))
    table.add_column("run", min_width=len(proposed.names[-1]))
    table.add_column("objective", justify="right", min_width=widest)
    for column in sizes:
        table.add_column(column, justify="right", min_width=len(column))
    table.add_column("largest weights", no_wrap=True, overflow="ellipsis")
    for k, (name, spec) in enumerate(zip(proposed.names, proposed.specs, strict=True)):
        style = "bold" if k == proposed.best else None
        counts = [count(column[k], digits=4) for column in sizes.values()]
        table.add_row(name, values[k], *counts, _largest_weights(spec.mixture), style=style)
    console.print(table)
    optimum = proposed.optimum
    best = proposed.names[proposed.best]
    console.print(
        f"{best} has the best prediction; {_binding(proposed.best_binding)}", highlight=False
    )
    console.print(
        f"Optimum of the space: {with_error(optimum.mean, proposed.optimum_std)} "
        f"(± as above) at {_largest_weights(optimum.mixture)}; {_binding(optimum.binding)}"
    )
    if optimum.binding:
        console.print(
            f"Optimum without constraints: {optimum.unconstrained_mean:.4f} at "
            f"{_largest_weights(optimum.unconstrained)}"
        )
    for note in notes:
        console.print(styled(("·", "yellow"), f" {note}"))
    print(out)


def _binding(binding: Sequence[str]) -> str:
    if not binding:
        return "no constraint binds."
    return "binding: " + "; ".join(binding) + "."


def _largest_weights(mixture: Mixture) -> str:
    """The largest weights, without the common prefix of the names (`train_the_pile_`)."""
    first, last = min(mixture.domains), max(mixture.domains)
    pairs = zip(first, last, strict=False)
    alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    at = 1 + max(first.rfind(sign, 0, alike) for sign in "_/:.")
    order = sorted(mixture.as_dict().items(), key=lambda item: -item[1])
    shown = [f"{name[at:]} {weight:.0%}" for name, weight in order if weight >= 0.005]
    return ", ".join(shown[:SHOWN_DOMAINS]) + (" …" if len(shown) > SHOWN_DOMAINS else "")
