"""What a report shows that has to be fitted: kept in `evidence.json`, so that it is fitted once.

Everything in it follows from the ledger and the study file. The file names what it was made from,
and is made again where that differs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt import __version__
from mixopt.core.errors import FileError, SurrogateError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.io import files
from mixopt.io.json_values import finite
from mixopt.io.trial_files import read_object
from mixopt.study.queries import search_trials, usual_fidelity
from mixopt.surrogates.effects import Effects
from mixopt.surrogates.scoring import OutOfFold, Score

if TYPE_CHECKING:
    from mixopt.offline.best_so_far import Reference
    from mixopt.study.model import StudyModel
    from mixopt.study.snapshot import Snapshot

FILE = "evidence.json"
VERSION = 1
MOST_METRICS = 24  # that effects are shown of: each takes a fit of its own


@dataclass(frozen=True)
class Evidence:
    """What the trials say beyond their own values.

    Attributes:
        surrogate: registry name of the one that predicted; empty while trials are too few.
        quality: its out-of-fold predictions of the search's trials.
        numbers: of the trials that it predicted.
        effects: of each domain on each metric, at the baseline.
        references: best so far of other ways to search; empty before a verdict.
    """

    surrogate: str = ""
    quality: OutOfFold | None = None
    numbers: tuple[int, ...] = ()
    effects: Effects | None = None
    references: Mapping[str, Reference] = field(default_factory=dict)


def read_evidence(snapshot: Snapshot, *, keep: bool) -> Evidence:
    """The evidence of a study as it stands.

    Args:
        snapshot: the study.
        keep: whether it may be written to the study folder; a folder that cannot be written to
            costs the fits each time.
    """
    if usual_fidelity(snapshot.trials) is None:
        return Evidence()
    key, path = _key(snapshot), snapshot.study.home / FILE
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        values = read_object(path)
        if values.get("key") == key:
            return _from_json(values)
    found = _fitted(snapshot)
    if keep:
        with contextlib.suppress(FileError):
            _keep(path, key, found)
    return found


def _keep(path: Path, key: str, found: Evidence) -> None:
    text = json.dumps(finite({"key": key, **_to_json(found)}))
    files.keep_bytes(path, text.encode())


def surrogate_name(snapshot: Snapshot) -> str:
    """The surrogate that a report asks.

    `auto` stands for the Gaussian process until the selection has compared the surrogates: doing
    so here would take as long as the search's own fit.
    """
    if snapshot.verdict is not None:
        return snapshot.verdict.surrogate
    asked = snapshot.study.search.surrogate
    return "gp" if asked == "auto" else asked


def _fitted(snapshot: Snapshot) -> Evidence:
    from mixopt.study.model import study_model  # imports torch, which takes a second

    fidelity = usual_fidelity(snapshot.trials)
    assert fidelity is not None  # checked by the caller
    name = surrogate_name(snapshot)
    model = study_model(snapshot.study, fidelity, snapshot.trials)
    quality: OutOfFold | None = None
    found: Effects | None = None
    with contextlib.suppress(SurrogateError):  # too few trials
        quality = model.held_out(name)
    at = _baseline(snapshot)
    if at is not None:
        with contextlib.suppress(SurrogateError):
            found = _effects(snapshot, name, at)
    numbers = tuple(
        t.number
        for t in sorted(model.trials, key=lambda t: t.number)
        if t.complete and t.spec.fidelity == fidelity
    )
    references: dict[str, Reference] = {}
    if snapshot.verdict is not None:  # a study that is told results one by one waits for none
        from mixopt.offline.best_so_far import references as replayed

        with contextlib.suppress(SurrogateError):
            references = replayed(snapshot.trials, snapshot.objective)
    return Evidence(name if quality or found else "", quality, numbers, found, references)


def _baseline(snapshot: Snapshot) -> Mixture | None:
    """The baseline over the trials' domains; None where it is not at hand."""
    verdict = snapshot.verdict
    known = verdict.candidate(verdict.baseline) if verdict is not None else None
    mixture = known.mixture if known is not None else next(iter(snapshot.baselines.values()), None)
    if mixture is None:
        return None
    domains = search_trials(snapshot.trials)[0].spec.mixture.domains
    weights = mixture.as_dict()
    if not set(weights) <= set(domains):
        return None
    return Mixture.of({domain: weights.get(domain, 0.0) for domain in domains})


def _effects(snapshot: Snapshot, name: str, at: Mixture) -> Effects:
    """Effects on the objective's metrics and the objective, then on all others in bits per byte.

    The objective's come from the very surrogate that the optimum is of.

    Raises:
        SurrogateError: too few trials are complete.
    """
    from mixopt.study.model import study_model

    fidelity = usual_fidelity(snapshot.trials)
    assert fidelity is not None
    model = study_model(snapshot.study, fidelity, snapshot.trials)
    objective = snapshot.objective
    first = _effects_of(model, name, objective, objective.metrics, at)
    others = other_metrics(snapshot)[: MOST_METRICS - len(objective.metrics)]
    if not others:
        return first
    alone = Objective({others[0]: 1.0}, prefix="")
    second = _effects_of(model, name, alone, others, at)
    return dataclasses.replace(
        first,
        metrics=(*objective.metrics, *others, first.metrics[-1]),
        change=np.hstack([first.change[:, :-1], second.change[:, :-1], first.change[:, -1:]]),
        std=np.hstack([first.std[:, :-1], second.std[:, :-1], first.std[:, -1:]]),
    )


def _effects_of(
    model: StudyModel, name: str, objective: Objective, metrics: Sequence[str], at: Mixture
) -> Effects:
    """Effects on `metrics`, with deviations of differences where the surrogate has none."""
    from mixopt.core.trial_table import TrialTable
    from mixopt.surrogates.effects import effects, jackknifed

    fitted = model.fitted(name, metrics)
    found = effects(fitted, objective, metrics, at)
    of_run = fitted.predict(at.array[None]).holds_noise(objective)
    if fitted.joint_posterior is not None and not of_run:
        return found
    table = TrialTable.of(model.trials, metrics)
    return jackknifed(found, table, lambda: model.fresh(name, metrics), objective, at)


def other_metrics(snapshot: Snapshot) -> tuple[str, ...]:
    """Guarded metrics, and those in bits per byte, that every complete trial of the search has."""
    done = [t for t in search_trials(snapshot.trials) if t.complete]
    shared = set.intersection(*(set(t.metrics) for t in done)) if done else set()
    guarded = [g.metric for g in snapshot.study.guarded()]
    names = [*guarded, *(m for m in (done[0].metrics if done else ()) if m.startswith("bpb/"))]
    own = set(snapshot.objective.metrics)
    return tuple(m for m in dict.fromkeys(names) if m in shared and m not in own)


def _key(snapshot: Snapshot) -> str:
    """Digest of all that the evidence follows from."""
    digest = hashlib.sha256()
    for part in _made_from(snapshot):
        digest.update(repr(part).encode())
    return digest.hexdigest()


def _made_from(snapshot: Snapshot) -> Iterator[object]:
    study, at = snapshot.study, _baseline(snapshot)
    yield VERSION, __version__, surrogate_name(snapshot), study.seed
    yield tuple(snapshot.objective.weights.items()), study.guarded(), study.search.pruner
    yield None if at is None else at.as_dict()
    yield snapshot.verdict is not None
    for t in search_trials(snapshot.trials):
        if t.result is not None:
            yield t.number, t.spec, t.state, tuple(t.metrics.items()), tuple(t.expected.items())


def _to_json(found: Evidence) -> dict[str, Any]:
    return {
        "surrogate": found.surrogate,
        "numbers": found.numbers,
        "quality": None if found.quality is None else _plain(found.quality),
        "effects": None if found.effects is None else _plain(found.effects),
        "references": {name: _plain(it) for name, it in found.references.items()},
    }


def _plain(record: Any) -> dict[str, Any]:
    """A dataclass of arrays as JSON-able values."""
    values: dict[str, Any] = {}
    for each in dataclasses.fields(record):
        value = getattr(record, each.name)
        if isinstance(value, np.ndarray):
            value = value.tolist()
        elif each.name == "scores":
            value = {name: dataclasses.asdict(score) for name, score in value.items()}
        values[each.name] = value
    return values


def _from_json(values: Mapping[str, Any]) -> Evidence:
    from mixopt.offline.best_so_far import Reference

    quality, found = values["quality"], values["effects"]
    return Evidence(
        str(values["surrogate"]),
        None if quality is None else _quality(quality),
        tuple(map(int, values["numbers"])),
        None if found is None else Effects(**_arrays(found)),
        {name: Reference(**_arrays(it)) for name, it in values["references"].items()},
    )


def _quality(values: Mapping[str, Any]) -> OutOfFold:
    arrays = _arrays({name: value for name, value in values.items() if name != "scores"})
    scores = {name: _score(it) for name, it in values["scores"].items()}
    return OutOfFold(**arrays, scores=scores)


def _arrays(values: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of numbers as arrays, in which null is NaN; lists of names as tuples."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        named = bool(value) and isinstance(value[0], str)
        found[name] = tuple(value) if named else np.array(value, dtype=float)
    return found


def _score(values: Mapping[str, Any]) -> Score:
    of = {name: math.nan if value is None else float(value) for name, value in values.items()}
    return Score(of["spearman"], of["r2"], of["mae"], of["coverage"], int(of["n"]))
