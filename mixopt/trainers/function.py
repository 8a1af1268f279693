"""A trainer that is a Python function: `package.module:function`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.trainers.base import Trainer, check_own, module_file


@dataclass(frozen=True, kw_only=True)
class Function(Trainer):
    """Calls `function(job, report) -> metrics` in a process of its own.

    `job` is a `mixopt.trainers.job.TrainingJob`, `report(tokens, metrics)` its method, and instead
    of metrics the function may return a `mixopt.trainers.job.TrainingResult`.

    Attributes:
        function: `package.module:function`, importable where it runs or from the study file's
            folder. Its module's file is among those a training depends on; what else it imports of
            one's own belongs into `files`.
    """

    function: str

    def __post_init__(self) -> None:
        module, _ = check_own(self.function, "trainer.function")
        module_file(module, self.folder)

    def argv(self, job_file: Path) -> list[str]:
        """See `Trainer.argv`."""
        # -P: a file of the study's folder cannot stand in for a module of mixopt or of Python
        return [sys.executable, "-P", "-m", "mixopt.trainers.call", self.function, str(job_file)]

    def program(self) -> dict[str, Any]:
        """See `Trainer.program`."""
        return {"function": self.function}

    def own_files(self) -> Iterable[Path]:
        """The function's module."""
        module, _ = check_own(self.function, "trainer.function")
        path = module_file(module, self.folder)
        return () if path is None else (path,)
