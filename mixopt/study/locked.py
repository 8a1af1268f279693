"""Locked settings: those that trainings depend on, kept in the study's folder by the first run.

A later run with another value is refused and shown the difference, so that all trials of a folder
compare. `may_change` says which settings are not locked.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt.core.errors import StudyError
from mixopt.core.mixture import Mixture
from mixopt.core.recipe import HARMLESS
from mixopt.core.space import MixtureSpace
from mixopt.corpus.shards import Corpus
from mixopt.io import files
from mixopt.io.trial_files import trial_folder
from mixopt.selection.candidates import NATURAL
from mixopt.study import own_trainer
from mixopt.study.data import TrainingData
from mixopt.study.overrides import as_options, read_overrides
from mixopt.study.settings import Study
from mixopt.study.tasks import task_keys

LOCKED = "study.json"  # in a study folder
METRICS = "metrics"  # key there: the objective's metrics, where trainings depend on them
DESIGNED = "baseline"  # key there: the mixture that the design lies around; absent where natural

# What may change between two runs of one study, because no training depends on it: where it runs
# and is shown, how the next round is proposed, how finalists are judged, and what is promoted (the
# name of a promotion's folder is a hash of its settings). Of the objective only the weights may
# change (see `lock_settings`).
FREE = (
    *("mlflow", "ray", "promote", "folder", "corpus", "ledger", "objective", "metrics", "select"),
    *("guardrails", "notify"),
    *(
        *("baseline", "search.enqueue", "search.holdout"),
        "search.rounds",
        "search.batch",
        "search.proposer",
        "search.surrogate",
        "space.budget",
    ),
    *(f"proxy.recipe.{name}" for name in HARMLESS),
    *(f"trainer.{name}" for name in own_trainer.HARMLESS),
)


# Keys that came later: a study that does not set them has the same `study.json` as before.
LATER = (
    *("tasks", "domains", "trainer", "proxy.params"),
    *("proxy.model.document_mask", "proxy.model.end_of_text"),
)


def may_change(key: str) -> bool:
    """Whether the setting `key` may change in a study that has begun.

    >>> may_change("search.batch"), may_change("search.trials")
    (True, False)
    """
    moved = key.startswith("domains.") and key.endswith(".path")
    return moved or any(key == free or key.startswith(f"{free}.") for free in FREE)


def has_begun(study: Study) -> bool:
    """Whether the study's folder holds locked settings or trials."""
    return (study.home / LOCKED).exists() or trial_folder(study.home, 0).parent.exists()


def require_begun(study: Study, first: str = "") -> None:
    """Refuse what needs the folder of a study that has begun, without making one.

    Args:
        study: the study that is asked about.
        first: the command to run first; `mixopt run` if empty.

    Raises:
        StudyError: the study has not begun.
    """
    if not has_begun(study):
        raise StudyError(
            f"study {study.name!r} has not begun: {study.home} is no folder of a study",
            where=str(study.path),
            hint=f"Run `{first or shlex.join(['mixopt', 'run', str(study.path)])}` first",
        )


def lock_settings(study: Study, data: TrainingData) -> None:
    """Write the settings that trainings depend on to the study's folder, or compare them with it.

    Raises:
        StudyError: a locked setting differs; the message shows both values.
        FileError: the folder's settings cannot be read.
    """
    settings = _settings_to_lock(study, data)
    path = study.home / LOCKED
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, settings | _designed(study, data))
        return
    _refuse_other_metrics(study, settings, _read_locked(path))
    if changed := changed_settings(study, data):
        raise StudyError(
            f"locked settings differ from those this study was begun with:{differences(changed)}",
            where=str(study.path),
            hint=_put_back(study, changed),
        )


def lock_anew(study: Study, data: TrainingData) -> None:
    """Write the settings as they are now; the baseline that the design lies around stays.

    Raises:
        FileError: the folder's settings cannot be read.
    """
    path = study.home / LOCKED
    before = _read_locked(path)
    designed = {DESIGNED: before[DESIGNED]} if DESIGNED in before else {}
    files.write_json(path, _settings_to_lock(study, data) | designed)


def changed_settings(study: Study, data: TrainingData) -> dict[str, tuple[Any, Any]]:
    """Locked settings that differ now: dotted key → value when it was locked, and value now.

    Raises:
        FileError: the folder's settings cannot be read.
    """
    settings, locked = _settings_to_lock(study, data), _read_locked(study.home / LOCKED)
    compared = (settings.keys() | locked.keys()) - {METRICS, DESIGNED}
    return {
        key: (locked.get(key), settings.get(key))
        for key in sorted(compared)
        if settings.get(key) != locked.get(key)
    }


def _put_back(study: Study, changed: Mapping[str, Any]) -> str:
    """What to do about settings that differ: of the file, or of the command line now or before."""
    before = [
        text
        for text in read_overrides(study.home) or ()
        if any(_sets(text, key) for key in changed) and text not in study.overrides
    ]
    now = [text for text in study.overrides if any(_sets(text, key) for key in changed)]
    if before:
        return f"The last run had them by {as_options(before)}: give it again"
    fix = f"Leave out {as_options(now)}" if now else "Put them back"
    return f"{fix}, or give the study another name ({study.home} keeps its trials)"


def _sets(override: str, key: str) -> bool:
    """Whether an override `name=value` sets the setting `key`, or a section around it."""
    name = override.partition("=")[0]
    return key == name or key.startswith(f"{name}.") or name == key.partition(".")[0]


def differences(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """A line per changed setting, for a person."""
    return "".join(
        f"\n  {key}: was {_shown(was)}, is {_shown(now)}" for key, (was, now) in changed.items()
    )


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)


def _settings_to_lock(study: Study, data: TrainingData) -> dict[str, Any]:
    """Settings by dotted key, with hashes of the data, the tasks and the files that they name."""
    settings = {
        key: value
        for key, value in _flat(study.model_dump(mode="json")).items()
        if not may_change(key) and not (key in LATER and not value)
    }
    settings |= {"budget": study.budget, "corpus hash": data.hash}
    if isinstance(data, Corpus):
        settings |= {f"tasks.{name} hash": key for name, key in task_keys(study, data).items()}
    if study.trainer is not None:
        kept = {key: value for key, value in settings.items() if _of_own_trainers(key, value)}
        return kept | _trainer_files(study.trainer.identity(study.path.parent))
    if study.proxy.recipe.evaluation_share is not None:
        settings[METRICS] = sorted(study.mixture_objective().metrics)
    return settings


def _designed(study: Study, data: TrainingData) -> dict[str, Any]:
    """The baseline that the study is begun with, if that is not natural."""
    name, mixture = next(iter(study.baselines(data).items()))
    return {} if name == NATURAL else {DESIGNED: mixture.as_dict()}


def design_space(study: Study, space: MixtureSpace) -> MixtureSpace:
    """`space` with the baseline that the study was begun with: its design and repeats are kept.

    Raises:
        FileError: the folder's settings cannot be read.
    """
    path = study.home / LOCKED
    if not path.exists():
        return space
    weights = _read_locked(path).get(DESIGNED)
    baseline = None if weights is None else Mixture.exact(weights)
    return dataclasses.replace(space, baseline=baseline)


def _of_own_trainers(key: str, value: Any) -> bool:
    """Whether a setting means anything to a trainer of the user's own."""
    if key.startswith(("proxy.model.", "proxy.recipe.")):
        return False
    return bool(value) or not key.startswith("trainer.")


def _trainer_files(identity: Mapping[str, Any]) -> dict[str, str]:
    """The files that a trainer depends on, with the hash of each."""
    return {f"trainer.files {name}": key for name, key in identity.get("files", {}).items()}


def _flat(values: Any, at: str = "") -> dict[str, Any]:
    """Nested dicts as one, with keys joined by dots."""
    if isinstance(values, dict) and values:
        return {k: v for key, sub in values.items() for k, v in _flat(sub, f"{at}.{key}").items()}
    return {at.removeprefix("."): values}


def _refuse_other_metrics(study: Study, settings: dict[str, Any], locked: dict[str, Any]) -> None:
    """Refuse an objective of other metrics where trainings depend on which it weighs.

    Raises:
        StudyError: it weighs other metrics than the locked ones.
    """
    if METRICS in settings and METRICS in locked and settings[METRICS] != locked[METRICS]:
        raise StudyError(
            f"the objective weighs {', '.join(settings[METRICS])}; the locked settings weigh "
            f"{', '.join(locked[METRICS])}. With proxy.recipe.evaluation_share, how much text of "
            "each domain is evaluated depends on which are weighed, so trials would not compare",
            where=f"{study.path}: objective",
            hint="Change weights other than 0 only, or give the study another name; a study begun "
            "with `evaluation_share: null` may weigh other metrics later",
        )


def _read_locked(path: Path) -> dict[str, Any]:
    return files.read_json(
        path,
        files.an_object,
        hint="Restore it, or delete it: the next run locks the study file's settings as they are",
    )
