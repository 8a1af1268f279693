"""The questions of a study's tasks, tokenized for its trainings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.core.errors import StudyError
from mixopt.corpus.questions import Questions
from mixopt.corpus.shards import Corpus
from mixopt.study.settings import Study

if TYPE_CHECKING:
    from mixopt.corpus.tasks import Task


def prepare_tasks(study: Study, corpus: Corpus, folder: Path) -> dict[str, Path]:
    """Task → file of its questions as tokens in `folder`, made where it is not there.

    Raises:
        CorpusError: a task's file cannot be read, or a line of it is no question.
        StudyError: the objective weighs the accuracy of a task without choices.
    """
    recipes = [study.proxy.recipe, *([study.upcycling.recipe] if study.upcycling else [])]
    longest = min(recipe.sequence_length for recipe in recipes)
    prepared = {task.name: task.prepare(corpus, folder, longest) for task in _tasks(study)}
    for name, path in prepared.items():
        if f"accuracy/{name}" in study.objective and Questions.read(path).choices.max() < 2:
            raise StudyError(
                f"task {name!r} has no choices, so no accuracy",
                where=f"{study.path}: objective",
                hint=f"Weigh task/{name}",
            )
    return prepared


def task_keys(study: Study, corpus: Corpus) -> dict[str, str]:
    """Task → identity of its questions.

    Raises:
        CorpusError: a task's file cannot be read.
    """
    return {task.name: task.key(corpus) for task in _tasks(study)}


def _tasks(study: Study) -> list[Task]:
    from mixopt.corpus.tasks import Task  # imports the tokenizers library

    here = study.path.parent
    return [Task(name, here / task.path, task.limit) for name, task in study.tasks.items()]
