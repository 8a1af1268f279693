"""`mixopt.Study`: a study defined and run from Python, as from a study file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import yaml

from mixopt.core.errors import StudyError
from mixopt.io import files
from mixopt.study import settings as study_file
from mixopt.study.locked import require_begun

if TYPE_CHECKING:
    from mixopt.api.study import OpenStudy

STEPS = ("search", "select", "promote", "run")
CALLED = "mixopt.Study"  # what errors begin with
HEAD = "# Written by mixopt.Study: change it there, or remove this line to keep it as it is.\n"


class Study:
    """A study, with the keys of a study file (docs/study.md) as arguments.

    The arguments are checked as a study file's are, and errors name the key. `run` writes them to
    `<name>.yaml` first, so that every command (`mixopt status`, `report`, `sync`) works on the
    study too, and a script that was killed goes on where it stood when it is run again.

    Example:
        study = mixopt.Study(
            name="tiny",
            corpus="corpus",
            objective={"law": 1.0},
            proxy={"tokens": "600k"},
            search={"trials": 16, "rounds": 2},
            promote=None,
        )
        found = study.run()
        found.verdict

    Args:
        directory: where the study file and the study's folder lie, and what other paths are
            relative to.
        **settings: keys of the study file: sections as dictionaries. `name`, `corpus` and
            `objective` are required.

    Raises:
        StudyError: naming key and fix.
    """

    def __init__(self, directory: str | Path = ".", **settings: Any) -> None:
        given = {key: _plain(value) for key, value in settings.items()}
        folder = Path(directory).absolute()
        checked = study_file.study_of(given, folder / "study.yaml", CALLED)
        self.path = folder / f"{checked.name}.yaml"
        """The study file."""
        self.settings = study_file.study_of(given, self.path, CALLED)
        """The settings, with what was left out."""
        self._given = given

    def __repr__(self) -> str:
        return f"mixopt.Study(name={self.settings.name!r}, directory={str(self.path.parent)!r})"

    def save(self) -> Path:
        """Write the study file, unless it says the same already; returns its path.

        Raises:
            StudyError: another file lies there, which `mixopt.Study` did not write.
            FileError: it cannot be written.
        """
        if self.path.exists():
            if self._is_saved():
                return self.path
            if not self.path.read_text().startswith(HEAD):
                raise StudyError(
                    "a study file with other settings is there, not written by mixopt.Study",
                    where=str(self.path),
                    hint="Give the study another name or directory",
                )
        text = yaml.safe_dump(self._given, sort_keys=False, allow_unicode=True)
        files.write_bytes(self.path, (HEAD + text).encode())
        return self.path

    def run(self, step: Literal["search", "select", "promote", "run"] = "run") -> OpenStudy:
        """Run the study, or one step of it, doing only what is not done.

        Progress is printed. Nobody else can work on the study meanwhile; anybody can look at it.

        Args:
            step: `run` for all of them; `promote` only where the study asks for it.

        Returns:
            The study as it stands then.

        Raises:
            MixoptError: whatever stops it; everything finished until then is kept. There is no such
                step: nothing is written.
        """
        if step not in STEPS:
            raise StudyError(
                f"there is no step {step!r}",
                where=f"{CALLED}.run",
                hint=f"Choose from {', '.join(STEPS)}",
            )
        from mixopt.pipelines.study.run import run_study  # imports Ray and MLflow

        run_study(self.save(), step)
        return self.open()

    def plan(self, slots: int = 0) -> None:
        """Print what the study will cost, before a token is spent.

        Args:
            slots: trainings at once; 0 for as many as this machine has cores.

        Raises:
            MixoptError: the study could not be run.
        """
        from mixopt.pipelines.study.plan import show_plan

        show_plan(self.save(), slots)

    def open(self) -> OpenStudy:
        """The study as it stands now; see `mixopt.open_study`.

        Raises:
            StudyError: it has not begun.
        """
        from mixopt.api.study import open_study

        require_begun(self.settings, first="study.run()")
        return open_study(self.path)

    def _is_saved(self) -> bool:
        try:
            return study_file.load_study(self.path) == self.settings
        except StudyError:
            return False


def _plain(value: Any) -> Any:
    """`value` as YAML holds it."""
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
