"""Existing dense models in the place of a promotion's trainings: found, and told apart.

`promote.seed_model` and `promote.expert_models` name them. Models of our own format take the place
of stages; what comes after them is trained as ever. Hugging Face checkpoints are upcycled as
`mixopt upcycle` does; our transformer cannot train them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.core.errors import MixoptError, StudyError
from mixopt.core.urls import masked
from mixopt.corpus.manifest import digest, file_sha256
from mixopt.io import files, yaml_lines
from mixopt.io.markers import SHAPE, TOKENIZER, WEIGHTS
from mixopt.io.trial_files import read_object
from mixopt.models.upcycling import SEED
from mixopt.study.settings import Study

FETCHED = "models"  # in a study folder: models that were fetched, and checksums
CHECKSUMS = "checksums.json"


@dataclass(frozen=True)
class ImportedModels:
    """The models that a study names in the place of trainings; all are of one kind.

    Attributes:
        seed: folder of the dense seed model.
        experts: domain → folder of the dense expert branched from it, in the study file's order.
        checkpoints: whether they are Hugging Face checkpoints, not of our own format.
        names: `seed` and domains → as the study file names them, without passwords.
    """

    seed: Path
    experts: Mapping[str, Path]
    checkpoints: bool
    names: Mapping[str, str]

    @property
    def folders(self) -> dict[str, Path]:
        """`seed` and domains → folder."""
        return {SEED: self.seed, **self.experts}

    def identity(self, home: Path) -> list[list[str]]:
        """Names and checksums of all: another model under the same name is another promotion.

        Args:
            home: the study folder, which remembers checksums of files that were not written since.

        Raises:
            FileError: the checksums cannot be kept.
        """
        record = home / FETCHED / CHECKSUMS
        before = read_object(record)
        found: dict[str, Any] = {}
        identity = []
        for name, folder in self.folders.items():
            sums = []
            for path in model_files(folder):
                status = path.stat()
                state = f"{status.st_size} {status.st_mtime_ns}"
                known = before.get(str(path))
                if not isinstance(known, dict) or known.get("state") != state:
                    known = {"state": state, "sha256": file_sha256(path)}
                found[str(path)] = known
                sums.append([path.name, known["sha256"]])
            identity.append([name, digest(sums)])
        if found != before:
            files.write_json(record, found)
        return identity


def model_files(folder: Path) -> list[Path]:
    """The files in `folder` that a promotion depends on."""
    from mixopt.models.families.checkpoint import CARRIED_FILES, CONFIG, INDEX  # imports torch

    named = (folder / name for name in (CONFIG, INDEX, SHAPE, *CARRIED_FILES))
    return sorted([*filter(Path.is_file, named), *folder.glob("*.safetensors")])


def find_models(study: Study, on_file: Callable[[str], None]) -> ImportedModels | None:
    """The models that `study` names, on this disk; None if it names none.

    Args:
        study: its file's folder is what relative paths start from.
        on_file: is given a line before a file is fetched.

    Raises:
        StudyError: one is not there, cannot be fetched, or is of another kind than the seed.
    """
    if study.promote is None or study.promote.seed_model is None:
        return None
    from mixopt.models.families.fetch import located  # imports torch

    folders: dict[str, Path] = {}
    for name, model in study.promote.imports.items():
        with naming(study, name):
            folders[name] = located(
                model,
                study.path.parent,
                study.home / FETCHED,
                lambda each: on_file(f"fetching {each}"),
            ).absolute()
            _check_there(folders[name])
    seed = folders.pop(SEED)
    checkpoints = is_checkpoint(seed)
    for name, folder in folders.items():
        if is_checkpoint(folder) != checkpoints:
            kinds = ("a Hugging Face checkpoint", "of our own format")
            mine, seeds = kinds if not checkpoints else kinds[::-1]
            raise StudyError(
                f"it is {mine}, and promote.seed_model is {seeds}",
                where=place(study, name),
                hint="Give experts that were branched from this seed",
            )
    names = {name: masked(model) for name, model in study.promote.imports.items()}
    return ImportedModels(seed, folders, checkpoints, names)


def is_checkpoint(folder: Path) -> bool:
    """Whether `folder` holds a Hugging Face checkpoint."""
    return (folder / "config.json").exists()


def place(study: Study, model: str, *more: str) -> str:
    """`file:line: key` of a model that the study names: `seed`, or a domain."""
    keys = ("promote", "seed_model") if model == SEED else ("promote", "expert_models", model)
    return line_of(study, *keys, *more)


def line_of(study: Study, *keys: str) -> str:
    """`file:line: key` of a key of the study file."""
    return yaml_lines.overridden(study.path, study.overrides).where(keys)


@contextlib.contextmanager
def naming(study: Study, model: str) -> Iterator[None]:
    """Errors of the block about a model name the study file, the line and the key.

    Raises:
        StudyError: in place of a MixoptError of the block; what it is about comes first.
    """
    try:
        yield
    except MixoptError as error:
        about = f"{error.where}: " if error.where else ""
        raise StudyError(
            f"{about}{error.what}", where=place(study, model), hint=error.hint
        ) from error


def _check_there(folder: Path) -> None:
    """Refuse a folder without a model.

    Raises:
        StudyError: it is not there, or holds neither of the two kinds.
    """
    if not folder.is_dir():
        raise StudyError(
            f"there is no folder {folder}",
            hint="Give a folder, relative to the study file, a URL or a name on the hub",
        )
    own = (folder / SHAPE).is_file() and (folder / WEIGHTS).is_file()
    if not is_checkpoint(folder) and not own:
        raise StudyError(
            f"there is neither config.json nor {SHAPE} with {WEIGHTS} in {folder}",
            hint="Give a Hugging Face checkpoint, or a dense stage of a promotion",
        )
    if not (folder / TOKENIZER).is_file():
        raise StudyError(
            f"there is no {TOKENIZER} in {folder}, so whether its tokenizer is that of the corpus "
            "cannot be told",
            hint=f"Put the {TOKENIZER} that it was trained with into that folder",
        )
