"""The baselines of a study: the mixture to beat, and further ones to compare with.

`baseline:` of a study file is `natural`, `uniform`, a CSV or JSON file, weights by domain, a
mapping of names to such, or a list of all these. The first is the one to beat.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from mixopt.core.errors import StudyError
from mixopt.core.mixture import Mixture
from mixopt.selection.candidates import NATURAL, PROPOSED, UNIFORM, projected
from mixopt.study.given_mixtures import mixture_of, naming, read_mixtures, weight

WORDS = (NATURAL, UNIFORM)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}")  # MLflow's names of metrics hold it
TAKEN = (*PROPOSED, "found", "proposed")  # what other mixtures of a study are called
UNNAMED = "baseline"

Weights = dict[str, float | str]
Baselines = str | dict[str, float | str | Weights] | list[str | dict[str, float | str | Weights]]


@dataclass(frozen=True)
class Baseline:
    """A baseline as the study file gives it.

    Attributes:
        name: unique in the study; what people read.
        given: `natural`, `uniform`, a file, or weights by domain.
        place: keys below `baseline:`, joined by dots.
    """

    name: str
    given: str | Mapping[str, Any]
    place: str = ""


def baselines_of(setting: Any) -> list[Baseline]:
    """The baselines that `setting` names, the one to beat first; no file is read.

    >>> [it.name for it in baselines_of(["production.csv", "natural"])]
    ['production', 'natural']

    Raises:
        StudyError: it is of another shape, or two have one name; `where` is below `baseline`.
    """
    found = list(_walk(setting, ""))
    if not found:
        raise StudyError("names no baseline", hint="Write natural, or leave it out")
    unnamed = [it for it in found if it.name == UNNAMED and it.given not in WORDS]
    names: dict[str, Baseline] = {}
    for it in found:
        number = unnamed.index(it) + 1 if len(unnamed) > 1 and it in unnamed else 1
        name = it.name if number == 1 else f"{it.name} {number}"
        if name in names:
            raise StudyError(
                f"two baselines are called {name!r}", where=it.place, hint="Name one of them anew"
            )
        names[name] = Baseline(name, it.given, it.place)
    return list(names.values())


def word_mixtures(natural: Mixture) -> dict[str, Mixture]:
    """The mixtures that every study has a word for, whatever its file names.

    >>> word_mixtures(Mixture.of({"web": 3, "code": 1}))["uniform"].weights
    (0.5, 0.5)
    """
    return {NATURAL: natural, UNIFORM: Mixture.uniform(natural.domains)}


def checked_baselines(setting: Any) -> Any:
    """`setting`, if it names baselines.

    Raises:
        StudyError: see `baselines_of`.
    """
    baselines_of(setting)
    return setting


def resolve_baselines(setting: Any, natural: Mixture, folder: Path) -> dict[str, Mixture]:
    """The baselines by name, over the domains of `natural` in their order, the one to beat first.

    Args:
        setting: of the study file.
        natural: the corpus' own proportions.
        folder: that files are relative to.

    Raises:
        StudyError: a file cannot be read, or one is no mixture over these domains; `where` is the
            file, or below `baseline`.
    """
    return {it.name: _mixture(it, natural, folder) for it in baselines_of(setting)}


def _walk(setting: Any, place: str) -> Iterator[Baseline]:
    """The baselines in `setting`, with names that may repeat."""
    if isinstance(setting, str):
        yield Baseline(_named_by(setting, place), setting, place)
    elif isinstance(setting, list):
        for number, inner in enumerate(setting):
            if isinstance(inner, list):
                raise _no_baseline(inner, _below(place, number))
            yield from _walk(inner, _below(place, number))
    elif isinstance(setting, Mapping) and setting:
        if all(isinstance(it, Real) or weight(it) is not None for it in setting.values()):
            yield Baseline(UNNAMED, setting, place)
            return
        for name, inner in setting.items():
            yield _named(str(name), inner, _below(place, name))
    else:
        raise _no_baseline(setting, place)


def _named(name: str, given: Any, place: str) -> Baseline:
    """The baseline that `name: given` names."""
    weights = isinstance(given, Mapping) and bool(given)
    if not (weights or isinstance(given, str)) or weight(given) is not None:
        raise _no_baseline(given, place)
    other = next((word for word in WORDS if name == word and given != word), None)
    if other is not None:
        raise StudyError(
            f"{other} is the name of the {other} mixture",
            where=place,
            hint=f"Choose another name, or write `{other}` alone",
        )
    _check_name(name, place)
    return Baseline(name, given, place)


def _check_name(name: str, place: str) -> None:
    if name in TAKEN or name.startswith(projected("")):
        raise StudyError(
            f"{name!r} is what another mixture of a study is called",
            where=place,
            hint="Choose another name, such as production",
        )
    if not NAME.fullmatch(name):
        raise StudyError(
            f"{name!r} is no name: letters, digits, blanks and ._-, at most 40",
            where=place,
            hint="Name it: {production: FILE}",
        )


def _named_by(text: str, place: str) -> str:
    """What a baseline is called that is given by a word or a file alone."""
    if text in WORDS:
        return text
    if Path(text).suffix.lower() not in (".csv", ".json", ".tsv"):
        raise StudyError(
            f"{text!r} is neither natural nor uniform, nor a CSV or JSON file",
            where=place,
            hint="Write natural, uniform, FILE.csv, FILE.json, or weights {web: 0.6, code: 0.4}",
        )
    _check_name(Path(text).stem, place)
    return Path(text).stem


def _below(place: str, key: object) -> str:
    return f"{place}.{key}" if place else str(key)


def _no_baseline(value: Any, place: str) -> StudyError:
    return StudyError(
        f"{value!r} is no baseline",
        where=place,
        hint="Write natural, uniform, a file, or weights that sum to 1: {web: 0.6, code: 0.4}",
    )


def _mixture(baseline: Baseline, natural: Mixture, folder: Path) -> Mixture:
    given = baseline.given
    if isinstance(given, str) and given in WORDS:
        return word_mixtures(natural)[given]
    if not isinstance(given, str):
        with naming(baseline.place, "."):
            return mixture_of(given, natural.domains)
    path = folder / given
    found = read_mixtures(path, natural.domains)
    if len(found) > 1:
        raise StudyError(
            f"holds {len(found)} mixtures, where one baseline belongs",
            where=str(path),
            hint="Give it one row, or a file for each baseline",
        )
    return found[0]
