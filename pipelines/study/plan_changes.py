"""What `mixopt run` makes of a study that has begun and was changed since, for `mixopt plan`.

Nothing is written: a script that was touched is found before money is spent on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mixopt.core.formatting import count
from mixopt.core.mixture import Mixture
from mixopt.io import files
from mixopt.pipelines.study.own_promotion import FULL_RUN_FOLDER, full_run_trainer
from mixopt.pipelines.study.promotion_folder import full_run_identity
from mixopt.pipelines.study.promotion_identity import new_promotion_note
from mixopt.pipelines.views.commands import command
from mixopt.study.data import TrainingData
from mixopt.study.first_training import may_change_yet
from mixopt.study.hashes import digest
from mixopt.study.locked import LOCKED, changed_settings, differences
from mixopt.study.promote import Promote
from mixopt.study.records import read_result, read_verdict
from mixopt.study.settings import Study
from mixopt.trainers.attempts import ATTEMPTS
from mixopt.trainers.job import JOB, TrainingJob


def change_notes(study: Study, data: TrainingData) -> list[str]:
    """What changed since the study began, and what a run will do; empty where nothing did.

    Raises:
        FileError: the folder's settings cannot be read.
        StudyError: a file that a trainer depends on is not there.
    """
    notes = []
    if (study.home / LOCKED).exists() and (changed := changed_settings(study, data)):
        what = f"Changed since this study began:{differences(changed)}\n"
        if study.trainer is not None and may_change_yet(study, changed):
            what += "No training is recorded yet: the next run takes the trainer as it is now."
        else:
            what += (
                f"`{command('run', study.path)}` refuses that: other settings or files are other "
                "trainings. Put them back, or give the study another name."
            )
        notes.append(what)
    if study.promote is not None and not study.promote.upcycles:
        notes += _full_run_notes(study, data, study.promote)
    return notes


def _full_run_notes(study: Study, data: TrainingData, settings: Promote) -> list[str]:
    """What becomes of the full run of the verdict's mixture, where one has begun before."""
    verdict = read_verdict(study.home)
    if verdict is None:
        return []
    folder = digest(full_run_identity(study, data, settings, verdict.mixture))
    at = study.home / "promotion" / folder
    begun = sorted((study.home / "promotion").glob(f"*/{FULL_RUN_FOLDER}/{JOB}"))
    if not begun:
        note = new_promotion_note(at, None)
        return [note] if note else []
    if read_result(at) is not None:
        return [f"The full run has ended ({at}): it is not trained again."]
    if at / FULL_RUN_FOLDER / JOB in begun:
        if _refused(at):
            return [f"The full run has ended, and its result was refused: see {at}."]
        return [f"The full run has begun ({at}): it goes on."]
    return [new_full_run_note(study, data, settings, verdict.mixture)]


def new_full_run_note(study: Study, data: TrainingData, settings: Promote, mixture: Mixture) -> str:
    """A line where the full run of a trainer begins beside an earlier one; empty where none does.

    Raises:
        StudyError: a file that a trainer depends on is not there.
    """
    begun = sorted((study.home / "promotion").glob(f"*/{FULL_RUN_FOLDER}/{JOB}"))
    folder = digest(full_run_identity(study, data, settings, mixture))
    if not begun or any(path.parents[1].name == folder for path in begun):
        return ""
    last = max(begun, key=lambda path: path.stat().st_mtime)
    job = TrainingJob.read(last)
    differs = ", ".join(_differences(job, study, settings, mixture.as_dict()))
    told = (
        "the result of that one was refused; put back what differs, and correct its result.json, "
        "and nothing is trained again"
        if _refused(last.parents[1])
        else "put back what differs, and that one counts"
    )
    return (
        f"A new full run begins, of {count(settings.tokens)} tokens, beside the one in "
        f"{last.parents[1]}. They differ in {differs or 'their data'}: {told}."
    )


def _refused(folder: Path) -> bool:
    """Whether the full run in a promotion's folder has ended with files that were refused."""
    path = folder / FULL_RUN_FOLDER / ATTEMPTS
    if not path.exists():
        return False
    hint = "Delete the folder, and this full run begins anew"
    return bool(files.read_json(path, files.an_object, hint=hint).get("refused"))


def _differences(
    job: TrainingJob, study: Study, settings: Promote, mixture: dict[str, float]
) -> Iterator[str]:
    """What a full run of now has otherwise than the one of `job`."""
    if job.trainer != full_run_trainer(study, settings):
        yield "promote.trainer (its files, command, version or settings)"
    if job.tokens != settings.tokens:
        yield "promote.tokens"
    if dict(job.mixture) != mixture:
        yield "the mixture of the verdict"
    if job.seed != study.seed:
        yield "the seed"
