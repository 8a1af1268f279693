"""A study at a moment: trials, rounds and results, read without a lock and without writing."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from mixopt.core.errors import CorpusError
from mixopt.core.objective import Objective
from mixopt.core.trials import Trial
from mixopt.corpus.shards import Corpus
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
    """

    study: Study
    objective: Objective
    trials: list[Trial]
    verdict: Verdict | None
    promotion: Promotion | None
    available: dict[str, int]
    rounds: Sequence[Round] = ()
    judged: Sequence[Judged] = ()


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
    owner = identity.read(study.home)
    if owner is not None:  # else it has not begun
        ledger = Ledger.read(study.ledger_url, study.name, objective, owner)
        try:
            trials = ledger.trials()
            rounds, judged = list(ledger.rounds().values()), list(ledger.judged().values())
        finally:
            ledger.close()
    available: dict[str, int] = {}
    with contextlib.suppress(CorpusError, OSError):
        available = Corpus.open(study.corpus_path).tokens
    return Snapshot(
        study,
        objective,
        trials,
        records.read_verdict(study.home),
        records.read_promotion(study.home),
        available,
        rounds,
        judged,
    )
