"""What a study's surrogate says of any mixture: `mixopt predict STUDY.yaml`.

    mixopt predict study.yaml --mixture web=40% --mixture production

The study is only read: it may be running.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from mixopt.api.study import OpenStudy, open_study
from mixopt.core.errors import StudyError
from mixopt.core.formatting import count
from mixopt.core.mixture import Mixture
from mixopt.io.csv_files import csv_bytes
from mixopt.offline.runs import read_mixtures
from mixopt.pipelines.offline.outputs import FILE, writable, write
from mixopt.pipelines.views.console import make_console, make_error_console, styled
from mixopt.pipelines.views.json_output import print_json
from mixopt.pipelines.views.seed_words import scattered, unrepeated
from mixopt.pipelines.views.wording import better, unit
from mixopt.search.designs import SMALLEST_WEIGHT
from mixopt.study.baselines import word_mixtures
from mixopt.study.given_mixtures import mixture_words
from mixopt.surrogates.noise import Forecast

SHOWN = 3  # weights of a mixture on the terminal
NAMED = 24  # columns on the terminal that a mixture's name has at most
GAP = 2  # between columns of a table


@dataclass(frozen=True)
class WhatIf:
    """A mixture and what runs of it will give.

    Attributes:
        name: as it was asked for.
        mixture: over the study's domains.
        forecast: of the objective.
        outside: the constraints that it breaks or reaches, where it lies outside the space.
    """

    name: str
    mixture: Mixture
    forecast: Forecast
    outside: tuple[str, ...] = ()

    def values(self) -> dict[str, float | None]:
        """Predicted objective, and its 90 % intervals for the mean over seeds and for one run."""
        mean, run = _intervals(self.forecast)
        return {
            "objective": self.forecast.mean,
            "mean_low": mean[0] if mean else None,
            "mean_high": mean[1] if mean else None,
            "run_low": run[0] if run else None,
            "run_high": run[1] if run else None,
            "this_seed_low": self.forecast.this_seed[0],
            "this_seed_high": self.forecast.this_seed[1],
        }


def predict_study(
    path: Path,
    mixtures: Sequence[str] = (),
    ratios: Path | None = None,
    out: Path | None = None,
    *,
    as_json: bool = False,
) -> None:
    """Predict the objective of mixtures by the surrogate of the study at `path`.

    Args:
        path: the study file.
        mixtures: each `web=40%`, `web=0.4,code=0.6`, `natural`, `uniform`, or the name of a
            baseline or candidate.
        ratios: CSV with a row per mixture.
        out: CSV to write; a row per mixture, with every metric that the objective weighs.
        as_json: print one JSON object instead of the table.

    Raises:
        StudyError: the study has not begun, or a mixture is none.
        RunsError: `ratios` cannot be read as mixtures.
        SurrogateError: too few trials are complete.
    """
    if out is not None:
        writable(out, FILE)
    study = open_study(path)
    asked, notes = _asked(study, mixtures, ratios)
    with make_error_console().status(styled("fitting")):
        found = what_if(study, asked)
    if out is not None:
        write(out, csv_bytes(_frame(study, found)))
    if as_json:
        rows = [
            {"mixture": it.name, "weights": it.mixture.as_dict(), **it.values()} for it in found
        ]
        values = {
            "study": study.settings.name,
            "surrogate": study.surrogate_name,
            "objective": dict(study.objective.shown.weights),
            "higher_is_better": study.higher_is_better,
            "rows": rows,
            "notes": notes,
        }
        print_json(values)
        return
    console = make_console()
    print_predictions(console, study, found)
    for note in notes:
        console.print(styled(("·", "yellow"), f" {note}"))
    if out is not None:
        print(out)


def what_if(study: OpenStudy, asked: Mapping[str, Mixture]) -> list[WhatIf]:
    """What the study's model predicts of each mixture, by name, in their order.

    Raises:
        SurrogateError: too few trials are complete.
    """
    model, space = study.model, study.space
    weights = np.stack([mixture.array for mixture in asked.values()])
    prediction = model.fitted(study.surrogate_name).predict(weights)
    means, stds = prediction.compose(study.objective)
    means = study.objective.sign * means
    return [
        WhatIf(
            name,
            mixture,
            model.forecast(study.snapshot.trials, mixture, (float(mean), float(std))),
            () if space.contains(mixture) else tuple(space.binding(mixture)),
        )
        for (name, mixture), mean, std in zip(asked.items(), means, stds, strict=True)
    ]


def known_mixtures(study: OpenStudy) -> dict[str, Mixture]:
    """The mixtures of the study that have a name: a verdict's candidates, baselines, two words."""
    verdict = study.verdict
    candidates = {it.name: it.mixture for it in verdict.candidates} if verdict else {}
    return {**word_mixtures(study.space.natural), **candidates, **study.snapshot.baselines}


def _asked(
    study: OpenStudy, texts: Sequence[str], ratios: Path | None
) -> tuple[dict[str, Mixture], list[str]]:
    """The baseline, then the mixtures that are asked for, by name; and notes for the user."""
    if not texts and ratios is None:
        raise StudyError(
            "no mixture is asked for", where="--mixture", hint="Write --mixture web=40%"
        )
    known, space = known_mixtures(study), study.space
    asked: dict[str, Mixture] = {}
    for text in texts:
        if text not in known and "=" not in text:
            raise StudyError(
                f"no mixture is called {text!r}",
                where=f"--mixture {text}",
                hint=f"Choose from {', '.join(known)}; or write web=40%",
            )
        asked[text] = known[text] if text in known else mixture_words(text, space.reference)
    notes: list[str] = []
    if ratios is not None:
        read = read_mixtures(ratios, space.domains)
        notes += read.notes
        rows = zip(read.names, read.weights, strict=True)
        asked |= {name: Mixture.from_array(space.domains, row) for name, row in rows}
    first = next(iter(study.snapshot.baselines.items()), None)
    if first is not None:
        asked = dict([first]) | asked
    return asked, notes


def _frame(study: OpenStudy, found: Sequence[WhatIf]) -> pl.DataFrame:
    """A row per mixture: `run`, weights, the objective's intervals, mean and std per metric."""
    rows: list[dict[str, Any]] = [
        {"run": it.name, **it.mixture.as_dict(), **it.values()} for it in found
    ]
    metrics = study.predict([it.mixture for it in found])
    own = [name for name in metrics.columns if not name.startswith("objective_")]
    return pl.concat([pl.DataFrame(rows), metrics.select(own)], how="horizontal")


def _intervals(forecast: Forecast) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """90 % intervals for the mean over seeds and for one run; None where seeds are not known."""
    if forecast.scatter is None:
        return None, None
    return forecast.within(), forecast.within(runs=1)


def print_predictions(console: Console, study: OpenStudy, found: Sequence[WhatIf]) -> None:
    """Print what is predicted of mixtures, of which there is at least one."""
    fidelity, what = study.model.settings.fidelity, unit(study.objective)
    size = f" of {count(fidelity.params)} parameters" if fidelity.params_known else ""
    console.print(
        f"Predicted objective{f' ({what})' if what else ''} of a proxy{size} after "
        f"{count(fidelity.tokens)} tokens, {better(study.objective)}, by {study.surrogate_name}:"
    )
    console.print(_table(found, console.width))
    scatter = found[0].forecast.scatter
    why = unrepeated(study.snapshot.trials, study.settings.search.repeats)
    console.print(
        f"Mean: over fresh seeds; {scattered(scatter)}."
        if scatter
        else f"For the search's own seed only: {why}.",
        style="dim",
    )
    for it in found:
        if it.outside:
            console.print(f"  {it.name} is outside the space: {'; '.join(it.outside)}")


def _table(found: Sequence[WhatIf], room: int) -> Table:
    """A row per mixture, in `room` columns: names of domains are cut to fit, numbers never."""
    scatter = found[0].forecast.scatter
    table = Table(box=None, pad_edge=False, header_style="bold")
    heads = ("mean ± 90 %", "one run ± 90 %") if scatter else ("± 90 %, one seed only",)
    rows = []
    for it in found:
        intervals = [pair for pair in _intervals(it.forecast) if pair] or [it.forecast.this_seed]
        cells = [f"{it.forecast.mean:.4f} ± {(high - low) / 2:.4f}" for low, high in intervals]
        rows.append((it.name, *cells, largest_weights(it.mixture)))
    widths = [max(map(len, column)) for column in zip(("mixture", *heads, ""), *rows, strict=True)]
    first, *numbers = [min(NAMED, widths[0]), *widths[1:-1]]
    left = room - first - sum(numbers) - GAP * (len(numbers) + 1)
    table.add_column("mixture", overflow="fold", width=first)
    for head, width in zip(heads, numbers, strict=True):
        table.add_column(head, justify="right", no_wrap=True, width=width)
    table.add_column("largest weights", no_wrap=True, overflow="ellipsis", max_width=max(left, 15))
    for row in rows:
        table.add_row(*row)
    return table


def largest_weights(mixture: Mixture) -> str:
    """The largest weights of a mixture, in words."""
    order = sorted(mixture.as_dict().items(), key=lambda item: -item[1])
    shown = [f"{name} {weight:.1%}" for name, weight in order if weight >= SMALLEST_WEIGHT]
    return ", ".join(shown[:SHOWN]) + (" …" if len(shown) > SHOWN else "")
