"""The value of a trial in Optuna's own views: its objective, with the sign that people read.

A study whose metrics are all better higher is maximised there. A ledger keeps the direction that it
was made with: in one that is minimised, values of such a study are negative, and named so. mixopt
itself never reads the values.
"""

from __future__ import annotations

from typing import Literal

from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from mixopt.core.objective import Objective

DIRECTIONS = ([StudyDirection.MINIMIZE], [StudyDirection.MAXIMIZE])
METRIC_NAMES = "study:metric_names"  # where `optuna.Study.set_metric_names` keeps them


def direction(objective: Objective) -> Literal["minimize", "maximize"]:
    """In which direction a new ledger has values of `objective`."""
    return "maximize" if objective.sign == -1 else "minimize"


def sign(storage: BaseStorage, study_id: int) -> int:
    """What a ledger multiplies the objective by, which is better lower."""
    return -1 if storage.get_study_directions(study_id) == [StudyDirection.MAXIMIZE] else 1


def name_value(storage: BaseStorage, study_id: int, objective: Objective) -> None:
    """Have Optuna's views call the value by its metric, `objective` of several; − turned."""
    name = objective.metrics[0] if len(objective.metrics) == 1 else "objective"
    names = [name if objective.sign == sign(storage, study_id) else f"−{name}"]
    if storage.get_study_system_attrs(study_id).get(METRIC_NAMES) != names:
        storage.set_study_system_attr(study_id, METRIC_NAMES, names)
