"""A study at a moment: trials, rounds and results, read without a lock and without writing."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mixopt.core.errors import CorpusError, StudyError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Trial
from mixopt.selection.candidates import NATURAL
from mixopt.selection.transfer import Transfer
from mixopt.study import identity, records
from mixopt.study.ledger import Ledger
from mixopt.study.results import Promotion, Verdict
from mixopt.study.rounds import Judged, Round
from mixopt.study.settings import Study


@dataclass(frozen=True)
class Snapshot:
    """A study as it stands: what views and notebooks read.

    Attributes:
        study: its settings.
        objective: with the weights that the study file names now.
        trials: of the ledger, by number.
        verdict: of the selection; None before there is one.
        promotion: what the promotion measured; None before it ended.
        available: training tokens by domain; empty where the corpus is not at hand.
        rounds: of proposals, by number.
        judged: what each verdict followed from, by look.
        baselines: by name, the one to beat first; empty where the corpus, or a file of theirs, is
            not at hand.
        holdout: SHA-256 of what was predicted of the held-out trials; None before it was.
        transfer: of the mixtures' order at a larger size; None before it is checked.
        overruled: basis of such a check → why a person goes on in spite of it.
    """

    study: Study
    objective: Objective
    trials: list[Trial]
    verdict: Verdict | None
    promotion: Promotion | None
    available: dict[str, int]
    rounds: Sequence[Round] = ()
    judged: Sequence[Judged] = ()
    baselines: Mapping[str, Mixture] = field(default_factory=dict)
    holdout: str | None = None
    transfer: Transfer | None = None
    overruled: Mapping[str, str] = field(default_factory=dict)

    @property
    def baseline(self) -> str:
        """What the verdict compares with; before there is one, what the study asks for."""
        if self.verdict is not None:
            return self.verdict.baseline
        return next(iter(self.baselines), NATURAL)


def read_snapshot(study: Study) -> Snapshot:
    """The study as it stands now.

    It works on a study that a driver is busy with, and on a read-only disk.

    Raises:
        LedgerError: the ledger cannot be reached.
    """
    objective = study.mixture_objective()
    trials: list[Trial] = []
    rounds: list[Round] = []
    judged: list[Judged] = []
    holdout = None
    overruled: dict[str, str] = {}
    owner = identity.read(study.home)
    if owner is not None:  # else it has not begun
        ledger = Ledger.read(study.ledger_url, study.name, objective, owner)
        try:
            trials = ledger.trials()
            holdout, overruled = ledger.holdout(), ledger.overruled()
            rounds, judged = list(ledger.rounds().values()), list(ledger.judged().values())
        finally:
            ledger.close()
    available: dict[str, int] = {}
    baselines: dict[str, Mixture] = {}
    with contextlib.suppress(CorpusError, OSError):
        data = study.training_data()
        available = dict(data.tokens)
        with contextlib.suppress(StudyError):  # a file that is gone by now
            baselines = study.baselines(data)
    return Snapshot(
        study,
        objective,
        trials,
        records.read_verdict(study.home),
        records.read_promotion(study.home),
        available,
        rounds,
        judged,
        baselines,
        holdout,
        records.read_transfer(study),
        overruled,
    )
