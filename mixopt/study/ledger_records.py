"""What a study keeps beside its trials, as attributes of the Optuna study.

Looks, rounds, what verdicts followed from, who trains with whom, the hash of predictions, and what
a person has overruled. All is JSON under keys of its own, each written in one transaction.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from optuna.storages import BaseStorage

from mixopt.selection.looks import Looks
from mixopt.study.rounds import Judged, Round

COHORTS, HOLDOUT, LOOKS, OVERRULED = "cohorts", "holdout", "looks", "overruled"
ROUND, JUDGED = "round ", "judged "  # before a number


class StudyRecords:
    """Records of one Optuna study; `mixopt.study.ledger.Ledger` opens it.

    Args:
        storage: that holds it.
        study_id: its number there.
    """

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id

    def looks(self) -> Looks | None:
        """The looks that were taken at the study; None before the first."""
        kept = self._storage.get_study_user_attrs(self._study_id).get(LOOKS)
        return None if kept is None else Looks.from_json(json.loads(kept))

    def keep_looks(self, looks: Looks) -> None:
        """Record the looks that were taken at the study."""
        kept = json.dumps(looks.to_json())
        self._storage.set_study_user_attr(self._study_id, LOOKS, kept)

    def holdout(self) -> str | None:
        """SHA-256 of what was predicted of the held-out trials; None before it was."""
        kept = self._storage.get_study_user_attrs(self._study_id).get(HOLDOUT)
        return None if kept is None else str(kept)

    def keep_holdout(self, digest: str) -> None:
        """Record the SHA-256 of what is predicted of the held-out trials, before they run."""
        self._storage.set_study_user_attr(self._study_id, HOLDOUT, digest)

    def overruled(self) -> dict[str, str]:
        """Basis of a check at a larger size → why a person goes on in spite of it."""
        kept = self._storage.get_study_user_attrs(self._study_id).get(OVERRULED)
        return {} if kept is None else dict(json.loads(kept))

    def keep_overruled(self, basis: str, why: str) -> None:
        """Record that a person goes on in spite of the check with that basis."""
        kept = self.overruled() | {basis: why}
        self._storage.set_study_user_attr(self._study_id, OVERRULED, json.dumps(kept))

    def cohorts(self) -> list[list[int]]:
        """The numbers of trials that train as one, also of those alone, of all that were packed."""
        kept = self._storage.get_study_user_attrs(self._study_id).get(COHORTS)
        return [] if kept is None else json.loads(kept)

    def pack(self, cohorts: Sequence[Sequence[int]]) -> None:
        """Record who trains with whom, before the first step; replaces what shares a trial."""
        new = {number for cohort in cohorts for number in cohort}
        before = [cohort for cohort in self.cohorts() if new.isdisjoint(cohort)]
        self._keep(COHORTS, [*before, *map(list, cohorts)])

    def rounds(self) -> dict[int, Round]:
        """Number → round of proposals."""
        return {r.number: r for r in map(Round.from_json, self._kept(ROUND))}

    def keep_round(self, asked: Round) -> None:
        """Record a round of proposals, before its trials are added."""
        self._keep(f"{ROUND}{asked.number}", asked.to_json())

    def judged(self) -> dict[int, Judged]:
        """Number of the look → what its verdict followed from."""
        return {j.look: j for j in (Judged(**values) for values in self._kept(JUDGED))}

    def keep_judged(self, judged: Judged) -> None:
        """Record what a verdict follows from."""
        self._keep(f"{JUDGED}{judged.look}", dataclasses.asdict(judged))

    def _kept(self, prefix: str) -> list[dict[str, Any]]:
        attributes = self._storage.get_study_user_attrs(self._study_id)
        return [json.loads(attributes[key]) for key in attributes if key.startswith(prefix)]

    def _keep(self, key: str, values: dict[str, Any] | Sequence[Any]) -> None:
        self._storage.set_study_user_attr(self._study_id, key, json.dumps(values))
