"""Known problems of other software, each recognized and with its way out."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mixopt.core import urls
from mixopt.pipelines.doctor.finding import Finding, Level, Place
from mixopt.study import identity

CHECK = "known problems"
OLDEST_SQLITE = (3, 35)


@dataclass(frozen=True)
class Problem:
    """One of them.

    Attributes:
        applies: whether the machine has it, by its environment variables and the place.
        text: what goes wrong.
        fix: the way out.
        level: how it counts.
    """

    applies: Callable[[Mapping[str, str], Place], bool]
    text: str
    fix: str
    level: Level = Level.NOTE


def _needless_address(environment: Mapping[str, str], place: Place) -> bool:
    local = place.study is not None and place.study.ray.address == "local"
    return "RAY_ADDRESS" in environment and local


PROBLEMS = (
    Problem(
        _needless_address,
        "RAY_ADDRESS is set, and the study starts a Ray of its own (ray.address: local)",
        "Leave ray.address out to use that cluster",
    ),
    Problem(
        lambda environment, place: (
            "MLFLOW_TRACKING_URI" in environment
            and place.study is not None
            and place.study.mlflow.uri is None
        ),
        "MLFLOW_TRACKING_URI is set: the study is shown there, not in its own folder",
        "Unset it, or set mlflow.uri, if that is not wanted",
    ),
    Problem(
        lambda environment, place: (
            "OMP_NUM_THREADS" in environment and not environment["OMP_NUM_THREADS"].isdigit()
        ),
        "OMP_NUM_THREADS is no number, so that torch and OpenBLAS take all cores",
        "Set it to 1, or leave it out",
    ),
    Problem(
        lambda environment, place: sqlite3.sqlite_version_info < OLDEST_SQLITE,
        f"SQLite {sqlite3.sqlite_version} is older than Optuna's and MLflow's migrations need",
        "Take a Python that is built with SQLite 3.35 or newer",
        Level.BROKEN,
    ),
    Problem(
        lambda environment, place: sys.platform == "win32",
        "mixopt is tested on Linux; its locks (`flock`) are not there on Windows",
        "Work in WSL 2",
        Level.BROKEN,
    ),
)


def check_known_problems(place: Place) -> Iterator[Finding]:
    """Go through the list, then try to open the study's ledger."""
    found = [p for p in PROBLEMS if p.applies(os.environ, place)]
    yield from (Finding(CHECK, p.level, p.text, p.fix) for p in found)
    if not found:
        yield Finding(CHECK, Level.FINE, f"none of {len(PROBLEMS)}")
    yield from _ledger(place)


def _ledger(place: Place) -> Iterator[Finding]:
    from mixopt.core.errors import MixoptError
    from mixopt.study.ledger import Ledger

    study = place.study
    owner = None if study is None else identity.read(study.home)
    if study is None or owner is None:
        return
    try:
        Ledger.read(study.ledger_url, study.name, study.mixture_objective(), owner).close()
    except MixoptError as error:
        yield Finding("ledger", Level.BROKEN, error.what, error.hint)
    else:
        text = f"{urls.masked(study.ledger_url)} can be read"
        yield Finding("ledger", Level.FINE, text)
