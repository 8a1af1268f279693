"""What ran, durably: the only truth about a study's trials, kept in an Optuna storage.

A trial's Optuna parameters are the mixture weights and its value is the objective as it was when
the trial ended, so Optuna's own dashboard and plots read true (`mixopt.study.ledger_values`: where
higher is better, it is maximised). mixopt never reads that value: it
computes the objective, whose weights may change, from the metrics. Spec, metrics, cost and failure
are user attributes; learning curves stay in the trials' folders, so the ledger stays small, but for
the objective of each evaluation, which Optuna's dashboard draws while a trial runs. What
rounds and verdicts used, and who trains with whom, are attributes of the Optuna study.

States map one to one: WAITING → RUNNING → COMPLETE, PRUNED or FAIL. A trial that was RUNNING
when the driver died is simply run on under the same number.

A ledger is bound to one study folder and to its training settings (`mixopt.study.identity`), both
kept as user attributes of the Optuna study. Each trial keeps its training's hash, which is
compared when it is read: another study's trials are never taken for one's own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import optuna
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from mixopt.core import urls
from mixopt.core.errors import LedgerError
from mixopt.core.objective import Objective
from mixopt.core.trials import (
    CurvePoint,
    Failure,
    Limits,
    Outcome,
    State,
    Trial,
    TrialResult,
    TrialSpec,
)
from mixopt.study import ledger_values
from mixopt.study.identity import Identity, is_kept, keep
from mixopt.study.ledger_checks import (
    bind,
    check_directions,
    check_owner,
    lost,
    refuse_lost,
    refusing,
)
from mixopt.study.ledger_records import StudyRecords
from mixopt.study.replaced import outcome_of, with_replacements
from mixopt.study.storage import only_driver, reporting

STATES = {
    TrialState.WAITING: State.WAITING,
    TrialState.RUNNING: State.RUNNING,
    TrialState.COMPLETE: State.COMPLETE,
    TrialState.PRUNED: State.PRUNED,
    TrialState.FAIL: State.FAILED,
}
WEIGHT = FloatDistribution(0.0, 1.0)
REPLACED = "replaced "  # before a trial's number: key of what the Optuna study keeps


class Ledger(StudyRecords):
    """The trials of one study, and what it keeps beside them (`StudyRecords`).

    Open one with `Ledger.open`, or with `Ledger.read` to look at it. All writes are single
    transactions of the storage; a result is written before the state that makes it count.
    """

    def __init__(
        self,
        storage: BaseStorage,
        study_id: int,
        name: str,
        objective: Objective,
        owner: Identity,
        held: contextlib.ExitStack | None = None,
    ) -> None:
        super().__init__(storage, study_id)
        self._held = held
        self.name, self.objective, self.owner = name, objective, owner

    @classmethod
    def open(cls, url: str, name: str, objective: Objective, owner: Identity) -> Ledger:
        """The ledger of study `name` at the storage `url`, made if it is not there.

        Args:
            url: where the storage is; PostgreSQL without a named driver gets psycopg.
            name: of the study, and of the Optuna study.
            objective: gives the trials their values.
            owner: the study folder that the ledger is bound to.

        Raises:
            LedgerError: the storage cannot be reached or used, or is another folder's.
        """
        with contextlib.ExitStack() as held:
            way = ledger_values.direction(objective)
            storage, study_id = cls._opened(url, name, owner, held, way)
            check_directions(storage, study_id, name, url)
            check_owner(storage, study_id, owner, url)
            if not is_kept(owner):
                keep(owner)
            bind(storage, study_id, owner)
            ledger_values.name_value(storage, study_id, objective)
            return cls(storage, study_id, name, objective, owner, held.pop_all())

    @classmethod
    def rebind(cls, url: str, name: str, owner: Identity, training: str) -> bool:
        """Bind ledger and folder to another training, if no trial has ended.

        Args:
            url: where the storage is.
            name: of the study.
            owner: the study folder that the ledger is bound to.
            training: hash of the data and of all settings that a training depends on from now on.

        Returns:
            False, with nothing changed, if a trial has ended or the ledger is another folder's.

        Raises:
            LedgerError: the storage cannot be reached or used.
        """
        with contextlib.ExitStack() as held:
            storage, study_id = cls._opened(url, name, owner, held)
            bound = storage.get_study_user_attrs(study_id)
            trials = storage.get_all_trials(study_id, deepcopy=False)
            own = bound.get("folder", owner.id) in (owner.id, owner.copied_from)
            if not own or any(trial.state.is_finished() for trial in trials):
                return False
            keep(dataclasses.replace(owner, training=training))
            for trial in trials:
                spec = TrialSpec.from_json(json.loads(trial.user_attrs["spec"]))
                key = spec.training_hash("", training)
                storage.set_trial_user_attr(trial._trial_id, "training", key)
            if "training" in bound:
                storage.set_study_user_attr(study_id, "training", training)
            storage.remove_session()
            return True

    @staticmethod
    def _opened(
        url: str,
        name: str,
        owner: Identity,
        held: contextlib.ExitStack,
        direction: Literal["minimize", "maximize"] = "minimize",
    ) -> tuple[BaseStorage, int]:
        """The storage at `url`, held by us alone, and the id of the Optuna study `name` there.

        The study is made if it is not there, in `direction`.
        """
        with refusing(url, owner):
            # Checking connections before use survives a database that restarts at night.
            database = RDBStorage(urls.with_driver(url), engine_kwargs={"pool_pre_ping": True})
            held.callback(database.engine.dispose)
            held.enter_context(only_driver(database, name, url))
            storage = optuna.storages.get_storage(database)
            study = optuna.create_study(
                storage=storage, study_name=name, direction=direction, load_if_exists=True
            )
            study_id = storage.get_study_id_from_name(study.study_name)
        return reporting(storage, url), study_id

    @classmethod
    def read(cls, url: str, name: str, objective: Objective, owner: Identity) -> Ledger:
        """The ledger of study `name` at `url`, to read only: nothing is made, changed or bound.

        Of SQLite the file may be write-protected or on a read-only disk, and SQLite itself refuses
        to write. Arguments as of `open`.

        Raises:
            LedgerError: it is not there, cannot be reached or used, or is another folder's.
        """
        refuse_lost(url, owner)
        with refusing(url, owner):
            storage = optuna.storages.get_storage(
                RDBStorage(
                    urls.read_only(url),
                    engine_kwargs={"pool_pre_ping": True},
                    skip_table_creation=True,
                )
            )
            storage = reporting(storage, url)
            try:
                study_id = storage.get_study_id_from_name(name)
            except KeyError as error:
                raise lost(url, owner, f"the ledger has no study {name!r}") from error
        check_directions(storage, study_id, name, url)
        check_owner(storage, study_id, owner, url)
        return cls(storage, study_id, name, objective, owner)

    def trials(self) -> list[Trial]:
        """All trials, by number; results come without their curves (`trial folder/curve.jsonl`).

        Raises:
            LedgerError: one of them is of another training than the study's.
        """
        stored = self._storage.get_all_trials(self._study_id, deepcopy=False)
        kept = self._storage.get_study_user_attrs(self._study_id)
        return [self._own(t, kept) for t in sorted(stored, key=lambda t: t.number)]

    def trial(self, number: int) -> Trial:
        """The trial with this number."""
        kept = self._storage.get_study_user_attrs(self._study_id)
        return self._own(self._storage.get_trial(self._id(number)), kept)

    def add(self, spec: TrialSpec, limits: Limits | None = None) -> Trial:
        """Record that `spec` is to be trained; the new trial is WAITING.

        Args:
            spec: what is asked for.
            limits: beyond which it is pruned; None trains it to its end. Never changed afterwards.
        """
        template = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=TrialState.WAITING,
            value=None,
            values=None,
            datetime_start=None,
            datetime_complete=None,
            params=spec.mixture.as_dict(),
            distributions=dict.fromkeys(spec.mixture.domains, WEIGHT),
            user_attrs={
                "spec": json.dumps(spec.to_json()),
                "training": self._training(spec),
                "role": str(spec.role),
                "round": spec.round,
                "seed": spec.seed,
                "tokens": spec.fidelity.tokens,
                **({"limits": json.dumps(limits.to_json())} if limits is not None else {}),
            },
            system_attrs={},
            intermediate_values={},
        )
        trial_id = self._storage.create_new_trial(self._study_id, template_trial=template)
        return self._own(self._storage.get_trial(trial_id), {})

    def start(self, number: int) -> Trial:
        """Count an attempt at trial `number`, which is RUNNING from now on.

        Raises:
            LedgerError: it is finished already.
        """
        trial = self.trial(number)
        self._refuse_finished(trial)
        if trial.state is State.WAITING:
            self._storage.set_trial_state_values(self._id(number), TrialState.RUNNING)
        self._set(number, "attempts", trial.attempts + 1)
        return dataclasses.replace(trial, state=State.RUNNING, attempts=trial.attempts + 1)

    def complete(self, number: int, result: TrialResult) -> Trial:
        """Record the result of trial `number`.

        Raises:
            LedgerError: it is finished already, or the objective's metrics are not in the result.
        """
        self._keep_result(number, result)
        self.report(number, result.curve)
        self._finish(number, TrialState.COMPLETE, [self._value(result.metrics)])
        return self.trial(number)

    def prune(self, number: int, result: TrialResult, message: str) -> Trial:
        """Record that trial `number` was stopped, with what it had spent and measured until then.

        It gets no value, but intermediate ones (`report`), so that Optuna's plots and samplers take
        it for what it is.

        Raises:
            LedgerError: it is finished already, or the objective's metrics are not in the result.
        """
        self._keep_result(number, result)
        self._set(number, "message", _shortened(message))
        self.report(number, result.curve)
        self._finish(number, TrialState.PRUNED, None)
        return self.trial(number)

    def report(self, number: int, curve: Sequence[CurvePoint]) -> None:
        """Let Optuna's dashboard draw the evaluations of trial `number`, which has not ended.

        They become Optuna's intermediate values: the objective by step, of points that compare (all
        on the text of the evaluations on the way). Those that are there already are left as
        they are, and so are points without a metric of the objective.
        """
        trial_id = self._id(number)
        known = self._storage.get_trial(trial_id).intermediate_values
        for point in curve:
            metrics = point.comparable
            if point.step not in known and metrics.keys() >= set(self.objective.metrics):
                value = self._value(metrics)
                self._storage.set_trial_intermediate_value(trial_id, point.step, value)

    def fail(self, number: int, failure: Failure, message: str) -> Trial:
        """Record that trial `number` ends without a result. It never becomes a score.

        Raises:
            LedgerError: it is finished already.
        """
        self._refuse_finished(self.trial(number))
        self._set(number, "failure", str(failure))
        self._set(number, "message", _shortened(message))
        self._finish(number, TrialState.FAIL, None)
        return self.trial(number)

    def replace(self, number: int, outcome: Outcome) -> Trial:
        """Record `outcome` in place of what was recorded of trial `number`, which is kept.

        Raises:
            LedgerError: it has not ended, or the objective's metrics are not in the result.
        """
        trial = self.trial(number)
        if not trial.ended:
            raise LedgerError(f"trial {number} of {self.name} has no result to be replaced")
        if outcome.result is not None:
            self._check_metrics(number, outcome.result)
        later = [*trial.replaced[1:], outcome_of(trial)] if trial.replaced else []
        self._keep(f"{REPLACED}{number}", [it.to_json() for it in (*later, outcome)])
        return self.trial(number)

    def hold(self, number: int, message: str) -> None:
        """Keep trial `number` open, but do not run it until it is released or failed."""
        self._refuse_finished(self.trial(number))
        self.note(number, message)
        self._set(number, "held", True)

    def release(self, number: int) -> None:
        """Let trial `number` run again.

        Raises:
            LedgerError: it is finished already.
        """
        self._refuse_finished(self.trial(number))
        self._set(number, "held", False)

    def note(self, number: int, message: str) -> None:
        """Keep a line about an attempt at trial `number` that will be tried again."""
        self._set(number, "message", _shortened(message))

    def close(self) -> None:
        """Let go of the storage's connections."""
        self._storage.remove_session()
        if self._held is not None:
            self._held.close()

    def _value(self, metrics: Mapping[str, float]) -> float:
        """What Optuna's views show of the objective of `metrics`."""
        sign = ledger_values.sign(self._storage, self._study_id)
        return sign * self.objective.value(metrics)

    def _training(self, spec: TrialSpec) -> str:
        return spec.training_hash("", self.owner.training)

    def _own(self, frozen: FrozenTrial, kept: Mapping[str, Any]) -> Trial:
        later = json.loads(kept.get(f"{REPLACED}{frozen.number}", "[]"))
        trial = with_replacements(_trial(frozen), [Outcome.from_json(it) for it in later])
        if frozen.user_attrs.get("training") != self._training(trial.spec):
            raise LedgerError(
                f"trial {trial.number} of {self.name} was not trained as this study trains",
                hint="Give the study a ledger of its own, or another name",
            )
        return trial

    def _keep_result(self, number: int, result: TrialResult) -> None:
        self._refuse_finished(self.trial(number))
        self._check_metrics(number, result)
        slim = dataclasses.replace(result, curve=())
        self._set(number, "result", json.dumps(slim.to_json()))

    def _check_metrics(self, number: int, result: TrialResult) -> None:
        missing = [m for m in self.objective.metrics if m not in result.metrics]
        if missing:
            raise LedgerError(f"trial {number} came back without {', '.join(missing)}")

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def _set(self, number: int, key: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._id(number), key, value)

    def _finish(self, number: int, state: TrialState, values: Sequence[float] | None) -> None:
        trial_id = self._id(number)
        if self._storage.get_trial(trial_id).state == TrialState.WAITING:
            self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        self._storage.set_trial_state_values(trial_id, state, values)

    def _refuse_finished(self, trial: Trial) -> None:
        if trial.ended:
            raise LedgerError(
                f"trial {trial.number} of {self.name} is {trial.state} and cannot be run again"
            )


def _shortened(message: str) -> str:
    """The end of `message` without passwords; cut afterwards, lest a part of one is left."""
    return urls.masked(message)[-2000:]


def _trial(frozen: FrozenTrial) -> Trial:
    kept = frozen.user_attrs
    state = STATES[frozen.state]
    result = None
    if state in (State.COMPLETE, State.PRUNED):
        result = TrialResult.from_json(json.loads(kept["result"]))
    limits = kept.get("limits")
    return Trial(
        number=frozen.number,
        spec=TrialSpec.from_json(json.loads(kept["spec"])),
        state=state,
        result=result,
        failure=Failure(kept["failure"]) if state is State.FAILED else None,
        message=kept.get("message", ""),
        attempts=kept.get("attempts", 0),
        limits=None if limits is None else Limits.from_json(json.loads(limits)),
        held=kept.get("held", False),
        started=None if frozen.datetime_start is None else frozen.datetime_start.timestamp(),
    )
