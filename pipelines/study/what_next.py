"""The mixtures that a study's proposer would try next: `mixopt propose STUDY.yaml`.

    mixopt propose study.yaml -n 4 --out next.csv

The study is only read: nothing is recorded, and it may be running. With `search: {enqueue:
[next.csv]}` the study tries them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import polars as pl

from mixopt.api.study import OpenStudy, open_study
from mixopt.core.errors import StudyError
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import TrialSpec
from mixopt.io.csv_files import csv_bytes
from mixopt.offline.as_trials import pending_trials
from mixopt.offline.runs import read_mixtures
from mixopt.pipelines.offline.outputs import FILE, writable, write
from mixopt.pipelines.offline.propose import Constraints, exact
from mixopt.pipelines.study.checks import kept_domains
from mixopt.pipelines.study.search import predictions
from mixopt.pipelines.study.what_if import print_predictions, what_if
from mixopt.pipelines.views.console import make_console, make_error_console, styled
from mixopt.pipelines.views.json_output import print_json
from mixopt.search import proposers
from mixopt.study.model import SurrogateFactory
from mixopt.study.queries import search_trials


def propose_for_study(
    path: Path,
    n: int | None = None,
    out: Path | None = None,
    *,
    constraints: Constraints | None = None,
    proposer: str | None = None,
    pending: Path | None = None,
    seed: int | None = None,
    as_json: bool = False,
) -> None:
    """Propose `n` mixtures for the study at `path`, and print what is predicted of them.

    Args:
        path: the study file.
        n: how many; a batch of the study's search if None.
        out: CSV to write, a row per mixture.
        constraints: beyond those of the study.
        proposer: registry name, or `package.module:Name`; the study's if None.
        pending: CSV of mixtures that are being trained elsewhere; the study's own trials that have
            not ended are known anyway.
        seed: of the proposer; the study's if None.
        as_json: print one JSON object instead of the table.

    Raises:
        MixoptError: the study has not begun, the constraints clash, or nothing can be proposed.
    """
    if n is not None and n < 1:
        raise StudyError(f"{n} mixtures were asked for", where="-n", hint="Ask for at least 1")
    if out is not None:
        writable(out, FILE)
    study = open_study(path)
    n = study.settings.search.batch if n is None else n
    space, notes = (constraints or Constraints()).on(study.space)
    name = proposer or study.settings.search.proposer
    with make_error_console().status(styled("fitting, proposing")):
        specs = proposed(study, space, n, name, seed, pending)
        asked = {f"p{k:04d}": spec.mixture for k, spec in enumerate(specs, 1)}
        found = what_if(study, asked) if asked else []
    if len(specs) < n:
        notes.append(f"{name} found only {len(specs)} mixtures to propose.")
    if out is not None:
        rows = [{"run": run, **mixture.as_dict()} for run, mixture in asked.items()]
        write(out, csv_bytes(pl.DataFrame(rows)))
    if as_json:
        values = {
            "study": study.settings.name,
            "proposer": name,
            "surrogate": study.surrogate_name,
            "objective": dict(study.objective.shown.weights),
            "higher_is_better": study.higher_is_better,
            "mixtures": [
                {"run": it.name, "mixture": it.mixture.as_dict(), **it.values()} for it in found
            ],
            "notes": notes,
        }
        print_json(values)
        return
    console = make_console()
    console.print(f"{len(found)} mixture{'s' * (len(found) != 1)} by {name}.")
    if found:
        print_predictions(console, study, found)
    for note in notes:
        console.print(styled(("·", "yellow"), f" {note}"))
    if out is not None:
        file = _beside(out.absolute(), study.settings.path.parent)
        console.print(f"To try them: search.enqueue: [{file}]", soft_wrap=True, highlight=False)
        print(out)


def _beside(file: Path, folder: Path) -> Path:
    """`file` as a study file in `folder` names it."""
    return file.relative_to(folder) if file.is_relative_to(folder) else file


def proposed(
    study: OpenStudy,
    space: MixtureSpace,
    n: int,
    name: str,
    seed: int | None = None,
    pending: Path | None = None,
) -> list[TrialSpec]:
    """The next trials of proposer `name`, given the study's trials; each lies in `space`.

    Trials that have not ended count as pending.

    Raises:
        StudyError: there is no such proposer.
        SurrogateError: too few trials are complete.
        MixtureError: the space holds too few mixtures.
    """
    settings, model = study.settings, study.model
    trials = search_trials(study.snapshot.trials)
    if pending is not None:
        waiting, number = read_mixtures(pending, space.domains).weights, len(study.snapshot.trials)
        fidelities = [model.settings.fidelity] * len(waiting)
        trials += pending_trials(space.domains, waiting, fidelities, number)
    kind, factory = proposers.find(name), SurrogateFactory(model)
    read = predictions(settings.home, kept_domains(settings)) if kind.needs_token_losses else None
    maker = kind(
        space=space,
        objective=study.objective,
        fidelity=model.settings.fidelity,
        surrogate=factory,
        seed=settings.seed if seed is None else seed,
        trial_seed=settings.seed,
        **({} if read is None else {"predictions": read}),
    )
    return [
        dataclasses.replace(spec, mixture=exact(space, spec.mixture, name))
        for spec in maker.propose(trials, n)
    ]
