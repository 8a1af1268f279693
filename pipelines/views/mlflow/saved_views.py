"""Views of the table of runs, saved with the experiment: which runs, which columns, what order.

MLflow 3.17 lists the experiment's tags `mlflow.sharedViewState.<key>` under *Views*, and a link
with `viewStateShareKey=<key>` opens one. The names in the state are those of MLflow's pages.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mixopt.pipelines.views.mlflow import run_tags

PREFIX = "mlflow.sharedViewState."
MOST = 5000  # characters that a tag of an experiment may have
DOMAINS = 12  # columns of weights
NAME, CREATED, DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "duration"
WIDTHS = {"name": 270, "role": 80, "round": 70, "fidelity": 150, "candidate": 130, "seed": 70}
WIDTH = 110  # of any other column, in pixels


@dataclass(frozen=True)
class SavedView:
    """One view.

    Attributes:
        key: what links name it by.
        name: what people read.
        filter: which runs, in MLflow's language.
        columns: `params.role`, `metrics.objective`, …, the run's name aside.
        order: column that they are sorted by.
        ascending: least first.
    """

    key: str
    name: str
    filter: str
    columns: Sequence[str]
    order: str
    ascending: bool

    def tag(self, created: int) -> tuple[str, str]:
        """The experiment's tag that keeps it; `created` is in milliseconds since 1970."""
        columns = [_key(column) for column in self.columns]
        widths = {_key(it): WIDTHS.get(it.split(".", 1)[1], WIDTH) for it in self.columns}
        state = {
            "searchFilter": self.filter,
            "orderByKey": _key(self.order),
            "orderByAsc": self.ascending,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
            "datasetsFilter": [],
            "selectedColumns": columns,
            "columnOrder": [NAME, *columns, CREATED, DURATION],
            "columnWidths": {NAME: WIDTHS["name"], **widths},
        }
        envelope = {
            "name": self.name,
            "createdAt": created,
            "updatedAt": created,
            "state": json.dumps(state),
        }
        return f"{PREFIX}{self.key}", json.dumps(envelope)


def study_views(study: str, identity: str, domains: Sequence[str], sign: int) -> list[SavedView]:
    """The views of a study: its trials, the best first; and its selection's.

    Args:
        study: its name.
        identity: its id.
        domains: of its mixtures.
        sign: of the objective as people read it: -1 where higher is better.
    """
    own = f"tags.`{run_tags.STUDY}` = '{study}' and tags.`{run_tags.KIND}` = 'trial'"
    what = ["metrics.objective", "params.role", "params.round", "params.fidelity"]
    weights = [f"params.mixture.{domain}" for domain in domains[:DOMAINS]]
    selected = ["metrics.objective", "params.candidate", "params.seed", "params.fidelity"]
    order = ("metrics.objective", sign == 1)
    views = [
        SavedView(key(identity), f"{study}: trials, best first", own, [*what, *weights], *order),
        SavedView(
            f"{key(identity)}-selection",
            f"{study}: selection",
            f"{own} and params.role = 'select'",
            [*selected, *weights],
            *order,
        ),
    ]
    return [view for view in views if len(view.tag(0)[1]) <= MOST]


def key(identity: str) -> str:
    """What links name the first view of the study with that id by."""
    return f"mixopt-{identity[:12]}"


def _key(column: str) -> str:
    kind, name = column.split(".", 1)
    return f"{kind}.`{name}`"
