"""Runs a Python function as a trainer.

    python -m mixopt.trainers.call package.module:function job.json
    python -m mixopt.trainers.call --check package.module:function      it imports: exit code 0

In a process of its own, so that a function ends like any program: with what it forked, and alone.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mixopt.core.errors import CorpusError, is_out_of_memory
from mixopt.core.trials import Failure
from mixopt.trainers.base import check_own
from mixopt.trainers.job import TrainingJob, TrainingResult

Train = Callable[[TrainingJob, Callable[..., None]], Mapping[str, float] | TrainingResult]


def run(train: Train, job_file: Path) -> None:
    """Call `train` for the job in `job_file`, and write what it returns as `result.json`.

    What it raises is raised again; memory that did not suffice and bad data are told by
    `result.json` before.
    """
    job = TrainingJob.read(job_file)
    try:
        returned = train(job, job.report)
    except BaseException as error:
        failure = _class_of(error)
        if failure is not None:
            job.finish(TrainingResult(failure=str(failure), message=str(error)))
        raise
    result = returned if isinstance(returned, TrainingResult) else TrainingResult(returned)
    job.finish(result)


def _class_of(error: BaseException) -> Failure | None:
    if isinstance(error, CorpusError):
        return Failure.BAD_DATA
    return Failure.OUT_OF_MEMORY if is_out_of_memory(error) else None


def _function(name: str) -> Any:
    module, attribute = check_own(name, "trainer.function")
    found = getattr(importlib.import_module(module), attribute)
    if not callable(found):
        raise TypeError(f"{name} is no function, it is {found!r}")
    return found


if __name__ == "__main__":
    sys.path.append(os.getcwd())  # the study file's folder
    if sys.argv[1] == "--check":
        _function(sys.argv[2])
    else:
        run(_function(sys.argv[1]), Path(sys.argv[2]))
