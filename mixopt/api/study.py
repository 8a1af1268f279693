"""A study as it stands, for notebooks and scripts: read without a lock, written by nobody here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import polars as pl

from mixopt.api.opened import Opened
from mixopt.api.plots import StudyPlots
from mixopt.core.errors import SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import CurvePoint
from mixopt.io import trial_files
from mixopt.search.front import Front
from mixopt.search.optimum import Recommendation
from mixopt.selection.transfer import Transfer
from mixopt.study.frames import (
    candidates_frame,
    curves_frame,
    differences_frame,
    trials_frame,
)
from mixopt.study.holdout import HoldoutScore, read_holdout, score_holdout
from mixopt.study.locked import require_begun
from mixopt.study.measured import measured_metrics
from mixopt.study.mixture_export import export_text
from mixopt.study.model import StudyModel, study_model
from mixopt.study.queries import usual_fidelity
from mixopt.study.reliability import study_reliability
from mixopt.study.results import Promotion, Verdict
from mixopt.study.settings import Study, load_study
from mixopt.study.snapshot import Snapshot, read_snapshot
from mixopt.surrogates.base import Surrogate
from mixopt.surrogates.reliability import Reliability
from mixopt.surrogates.scoring import OutOfFold


class OpenStudy(Opened):
    """A study at the moment when it was opened; open it again to see what has happened since.

    Made by `mixopt.open_study`.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        """All that was read of the study."""

    def __repr__(self) -> str:
        complete = sum(trial.complete for trial in self.snapshot.trials)
        return f"<study {self.settings.name}: {complete} of {len(self.snapshot.trials)} trials>"

    @property
    def settings(self) -> Study:
        """The study file, as docs/study.md describes it."""
        return self.snapshot.study

    @property
    def objective(self) -> Objective:
        """With the weights that the study file names now; lower is better."""
        return self.snapshot.objective

    @cached_property
    def space(self) -> MixtureSpace:
        """Where the mixture may lie, given what the corpus holds.

        Raises:
            CorpusError: the corpus is not there.
        """
        return self.settings.mixture_space(self.settings.training_data())

    @cached_property
    def trials(self) -> pl.DataFrame:
        """A row per trial of the ledger, by number (see `mixopt.study.frames.trials_frame`).

        Columns: `trial`, `state`, `role`, `round`, `candidate`, `seed`, `model`, `params`,
        `tokens`, `mixture.<domain>`, `objective`, a column per metric, `device_seconds`, `flops`,
        `attempts`, `failure`, `message`. What a trial does not have is null.
        """
        return trials_frame(self.snapshot.trials, self.objective)

    @cached_property
    def curve_points(self) -> dict[int, list[CurvePoint]]:
        """Number of the trial → its evaluations, oldest first; of running trials those so far."""
        home = self.settings.home
        found = {t.number: trial_files.read_curve(home, t) for t in self.snapshot.trials}
        return {number: points for number, points in found.items() if points}

    @cached_property
    def curves(self) -> pl.DataFrame:
        """A row per evaluation (see `mixopt.study.frames.curves_frame`).

        Columns: `trial`, `step`, `tokens`, `seconds`, `objective`, a column per metric,
        `train/…` of the training. All evaluations of a trial are on the same text, so that they
        compare.
        """
        return curves_frame(self.curve_points, self.objective)

    @cached_property
    def reliability(self) -> dict[str, Reliability]:
        """See `Opened.reliability`; of the metrics of the objective and of guardrails."""
        return study_reliability(self.settings, self.snapshot.trials)

    @property
    def verdict(self) -> Verdict | None:
        """What the selection decided; None before it has.

        Its values of the objective are those that people read: see `higher_is_better`.
        """
        verdict = self.snapshot.verdict
        return None if verdict is None else verdict.turned(self.objective.sign)

    @property
    def candidates(self) -> pl.DataFrame:
        """A row per candidate of the selection (see `mixopt.study.frames.candidates_frame`).

        Empty before a verdict. Values of the objective are as those of `verdict`.
        """
        return candidates_frame(self.verdict)

    @property
    def differences(self) -> pl.DataFrame:
        """A row per metric and candidate: what the mixture changes against the baseline.

        See `mixopt.study.frames.differences_frame`. Empty before a verdict, and where the
        objective has other weights by now.
        """
        return differences_frame(measured_metrics(self.snapshot))

    @property
    def promotion(self) -> Promotion | None:
        """What the promotion measured; None before it ended."""
        return self.snapshot.promotion

    @property
    def transfer(self) -> Transfer | None:
        """Whether the mixtures' order holds at a larger size (select.at); None before a check."""
        found = self.snapshot.transfer
        return None if found is None else found.turned(self.objective.sign)

    @property
    def holdout(self) -> HoldoutScore | None:
        """How well the held-out trials were predicted (search.holdout); None before they were.

        Its values are as people read them: higher is better where all weighed metrics are.

        Raises:
            StudyError: the predictions are not as they were before the trials ran.
        """
        digest = self.snapshot.holdout
        if digest is None:
            return None
        held = read_holdout(self.settings.home, digest)
        return score_holdout(held, self.snapshot.trials).turned(held.objective.sign)

    @property
    def plots(self) -> StudyPlots:
        """The figures of this study."""
        return StudyPlots(
            self.snapshot,
            points=lambda: self.curve_points,
            quality=lambda: (self.surrogate_name, self.out_of_fold()),
        )

    @cached_property
    def model(self) -> StudyModel:
        """The study's model, shared with all who ask about the same trials.

        Raises:
            SurrogateError: no trial of the search is complete.
        """
        fidelity = usual_fidelity(self.snapshot.trials)
        if fidelity is None:
            raise SurrogateError("no trial is complete yet", hint="Run the search first")
        return study_model(self.settings, fidelity, self.snapshot.trials)

    @property
    def surrogate_name(self) -> str:
        """Registry name of the verdict's surrogate; before a verdict, of what the study asks for.

        Raises:
            SurrogateError: `auto` is asked for, and too few trials are complete to choose.
        """
        return self.model.name if self.verdict is None else self.verdict.surrogate

    def optimum(self) -> Recommendation:
        """See `Opened.optimum`. It searches the space anew: keep what it returns.

        Raises:
            CorpusError: the corpus, which bounds the space, is not there.
            SurrogateError: too few trials are complete.
        """
        return self.model.optimum(self.space, self.surrogate_name).turned(self._sign)

    def front(self) -> Front:
        """What can be had of the objective's metrics at once: the predicted Pareto front.

        Points by the first metric, the best first, with labels that follow from the mixtures, and
        the baseline beside them; see `mixopt.search.front.pareto_front`.

        Raises:
            StudyError: the objective has one metric.
            CorpusError: the corpus, which bounds the space, is not there.
            SurrogateError: too few trials are complete.
        """
        return self.model.front(self.space, self.surrogate_name)

    def out_of_fold(self) -> OutOfFold:
        """See `Opened.out_of_fold`; of the search's complete trials."""
        return self.model.held_out(self.surrogate_name).turned(self._sign)

    def export_mixture(self, format: str, paths: Mapping[str, str] | None = None) -> str:
        """The chosen mixture as the text of a file that another trainer reads (docs/export.md).

        Args:
            format: `csv`, `datasets`, `json`, `levanter`, `megatron`, `mosaicml`, `olmo-core`,
                `torchtitan`, or `package.module:Name` of your own.
            paths: domain → where that trainer finds it; without one, a placeholder is written.

        Raises:
            StudyError: there is no verdict yet, or no such format or domain.
            CorpusError: the corpus, which tells tokens and epochs, is not there.
        """
        return export_text(self.settings, self.verdict, format, paths)

    def _model(self) -> Surrogate:
        return self.model.fitted(self.surrogate_name)

    def _domains(self) -> tuple[str, ...]:
        return self.model.trials[0].spec.mixture.domains


def open_study(path: str | Path) -> OpenStudy:
    """The study of the file at `path`, as it stands now.

    It takes no lock and writes nothing: the study may be running, and its folder may be on a
    read-only disk.

    Example:
        study = mixopt.open_study("study.yaml")
        study.trials.sort("objective", descending=study.higher_is_better).head()
        study.predict({"web": 0.6, "code": 0.4})

    Raises:
        StudyError: the file is not valid, or the study has not begun.
        LedgerError: the ledger cannot be reached.
    """
    study = load_study(path)
    require_begun(study)
    return OpenStudy(read_snapshot(study))
