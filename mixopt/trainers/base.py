"""What a trainer is: how a training is started, and what its outcome depends on besides the job."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixopt.core.errors import StudyError
from mixopt.core.registry import is_own, resolve
from mixopt.trainers import TRAINERS


@dataclass(frozen=True)
class Trainer(ABC):
    """Starts trainings that read `job.json` and write `progress.jsonl` and `result.json`.

    A trainer of one's own derives from it as a frozen dataclass; its fields are the keys of
    `trainer:` in the study file. It travels to the worker that runs it.

    Attributes:
        folder: the study file's folder, absolute: where relative paths begin and the training runs.
        files: whose content a training depends on, relative to `folder`; of a folder, all in it.
        version: of whatever else it depends on; say a new one where results would differ.
        settings: for the trainer: `settings` of `job.json`.
    """

    folder: Path
    files: tuple[str, ...] = ()
    version: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @abstractmethod
    def argv(self, job_file: Path) -> list[str]:
        """The words of the command that trains the job in `job_file`; no shell reads them."""

    @abstractmethod
    def program(self) -> dict[str, Any]:
        """What names the program, as JSON-able values: a part of `identity`."""

    def own_files(self) -> Iterable[Path]:
        """Files that a training depends on besides `files`."""
        return ()

    def identity(self) -> dict[str, Any]:
        """All that a training depends on besides its job, as JSON-able values.

        Raises:
            StudyError: a file of it is not there.
        """
        named = [path for name in self.files for path in _expand(self.folder, name)]
        paths = {_shown(path, self.folder): path for path in self.own_files()}
        paths |= {os.path.relpath(path, self.folder): path for path in named}
        return {
            **self.program(),
            "files": {name: _sha256(path) for name, path in sorted(paths.items())},
            "version": self.version,
            "settings": dict(self.settings),
        }

    def digest(self) -> str:
        """Hash of `identity`."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_trainer(values: str | Mapping[str, Any], folder: Path) -> Trainer:
    """The trainer that `trainer:` of a study file in `folder` names.

    Args:
        values: `package.module:function`; or keys of a trainer: `command`, or `function`, or
            `kind: package.module:Class` for one's own, each with `files`, `version`, `settings`.
        folder: of the study file.

    Raises:
        StudyError: a key is missing, unknown or of another type; or a class does not import.
    """
    keys: dict[str, Any] = {"function": values} if isinstance(values, str) else dict(values)
    kind = keys.pop("kind", None)
    if kind is None:
        named = [name for name in TRAINERS if name in keys]
        if len(named) != 1:
            raise StudyError(
                f"must name one of {', '.join(TRAINERS)}, names {' and '.join(named) or 'none'}",
                where="trainer",
                hint="Write {command: python train.py {job}} or package.module:function",
            )
        kind = named[0]
    with importing_from(folder):
        made = resolve("trainer", kind, TRAINERS, Trainer)  # type: ignore[type-abstract]
    if "files" in keys:
        keys["files"] = _texts(keys["files"], "trainer.files")
    if "version" in keys:  # YAML reads 2 and 1.5 as numbers
        keys["version"] = str(keys["version"])
    if not isinstance(keys.get("settings", {}), Mapping):
        raise StudyError("must be a mapping of names to values", where="trainer.settings")
    try:
        return made(folder=folder.absolute(), **keys)
    except TypeError as error:
        raise StudyError(f"the keys do not fit: {error}", where="trainer") from error


@contextlib.contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """While the block runs, modules are looked for in `folder` too, after all other places."""
    path = str(folder.absolute())
    sys.path.append(path)
    try:
        yield
    finally:
        sys.path.remove(path)


def module_file(name: str, folder: Path) -> Path | None:
    """The source of module `name`, imported from `folder` or elsewhere; None if it has none.

    Raises:
        StudyError: there is no such module.
    """
    importlib.invalidate_caches()  # it may have been written a moment ago
    with importing_from(folder):
        try:
            found = importlib.util.find_spec(name)
        except ImportError as error:
            raise StudyError(f"{name} does not import: {error}", where="trainer") from error
    if found is None:
        raise StudyError(
            f"there is no module {name!r}",
            where="trainer",
            hint=f"Install it, or put it beside the study file in {folder}",
        )
    return Path(found.origin) if found.has_location and found.origin else None


def check_own(name: str, where: str) -> tuple[str, str]:
    """Module and name of `package.module:name`.

    Raises:
        StudyError: it has another form.
    """
    if not is_own(name):
        raise StudyError(f"{name!r} is no package.module:name", where=where)
    module, _, attribute = name.partition(":")
    return module, attribute


def _texts(values: Any, where: str) -> tuple[str, ...]:
    values = [values] if isinstance(values, str) else values
    if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
        raise StudyError(f"must be a list of paths, is {values!r}", where=where)
    return tuple(values)


def _expand(folder: Path, name: str) -> list[Path]:
    """The file, or of a folder all files in it but hidden and compiled ones."""
    path = folder / name
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise StudyError(
            "there is no such file",
            where=f"trainer.files: {path}",
            hint="Paths begin at the study file's folder",
        )
    inside = [p for p in path.rglob("*") if p.is_file()]
    return [p for p in inside if not any(_ignored(part) for part in p.relative_to(path).parts)]


def _ignored(part: str) -> bool:
    return part.startswith(".") or part == "__pycache__"


def _shown(path: Path, folder: Path) -> str:
    """A name that stays when the study's folder moves, and on another machine."""
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StudyError(
            f"cannot be read: {error.strerror}", where=f"trainer.files: {path}"
        ) from error
