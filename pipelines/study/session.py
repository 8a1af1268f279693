"""An open study: its file, corpus, space, ledger and views, held by one driver.

Everything durable is under `study.home`:

    study.json        the locked settings: those that trainings depend on
    identity.json     the folder's id, which its ledger and its MLflow runs carry
    driver.lock       the active driver
    overrides.json    what its last driver was given by --set
    ledger.db         the ledger (unless the study file names another storage)
    precision.json    fp32 or bf16, resolved once for all trainings
    transfer.json     the order of the mixtures at a larger size (select.at)
    holdout.json      what was predicted of the held-out trials, before they ran
    cohort.json       how many trials train fastest as one, measured once
    verified/         which machines compared the corpus with its checksums
    trials/0007/      checkpoint, curve, attempts, completion marker of trial 7
    cohorts/0004-0007/  trials that train as one (the ledger says which): their checkpoint
    progress.json     how far the active driver is, for `mixopt status`
    looks.json        how often the study was judged (select.looks)
    verdict.json      the gate's comparison, and the mixture to promote (mixture.json)
    promotion/…/      stages, weights and result of a promotion
    models/           existing models that were fetched for it, and checksums of such models
    tasks/            the questions of tasks as tokens
    report.html, mlflow.db
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from mixopt.core.errors import StudyError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.recipe import TRAINING_PER_FORWARD, Recipe
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import Fidelity, Role, Trial
from mixopt.corpus.shards import Corpus
from mixopt.io import locks
from mixopt.io.trial_files import trial_folder
from mixopt.models.config import ModelConfig
from mixopt.pipelines.study import measured
from mixopt.pipelines.study.checks import check, kept_domains
from mixopt.pipelines.study.cohorts import Cohort, Packing
from mixopt.pipelines.study.export_model import registry_folder
from mixopt.pipelines.study.imported_checks import import_models
from mixopt.pipelines.study.imported_models import ImportedModels
from mixopt.pipelines.study.promotion_room import room_note
from mixopt.pipelines.views.console import Display, make_console, styled
from mixopt.pipelines.views.mlflow.tracking import Tracker
from mixopt.proxies.job import Job
from mixopt.study.data import TrainingData, job_domains
from mixopt.study.first_training import take_changed_trainer
from mixopt.study.hashes import digest
from mixopt.study.identity import claim
from mixopt.study.ledger import Ledger
from mixopt.study.locked import LOCKED, lock_settings
from mixopt.study.named_parts import import_named_parts
from mixopt.study.overrides import keep_overrides, overrides_note, read_overrides
from mixopt.study.promote import Promote
from mixopt.study.queries import SEARCH_ROLES
from mixopt.study.sections import Proxy
from mixopt.study.settings import Study, load_study
from mixopt.study.tasks import prepare_tasks
from mixopt.study.trainings import (
    larger_fidelity,
    larger_model,
    proxy_fidelity,
    proxy_model,
    study_binding,
    token_limits,
    training_hash,
)
from mixopt.trainers.base import Trainer
from mixopt.trainers.job import TrainingJob
from mixopt.workers.cluster import Resources, connect
from mixopt.workers.cluster import slots as cluster_slots
from mixopt.workers.own_job import OwnJob
from mixopt.workers.proxy_task import Work

VERIFIED = "verified"
LARGE_CORPUS = 4e9  # bytes that take seconds to read: then it is announced


def study_resources(study: Study) -> Resources:
    """What a training of `study` asks of the cluster."""
    ray = study.ray
    return Resources(ray.cpus_per_trial, ray.gpus_per_trial, ray.attempts)


@dataclass
class Session:
    """An open study. Made by `open_session`, which holds the study's lock as long as it lives."""

    study: Study
    data: TrainingData
    space: MixtureSpace
    objective: Objective
    ledger: Ledger
    tracker: Tracker
    display: Display
    _stack: contextlib.ExitStack
    _where: str = ""
    tasks: dict[str, str] = field(default_factory=dict)  # name → file of its prepared questions
    models: ImportedModels | None = None  # existing ones, looked at where something may be trained

    def connect(self) -> None:
        """Be connected to Ray until the session ends.

        Called where work begins, so that a finished study starts no cluster to say so.
        """
        if not self._where:
            self._where = self._stack.enter_context(connect(self.study.ray.address))
            self.display.say(styled((self.study.name, "bold"), f": {self._where}"))
            if note := room_note(self.study):
                self.display.warn(note)
            stored = self.data.stored_bytes if isinstance(self.data, Corpus) else 0
            if stored > LARGE_CORPUS and not Path(self.verified).exists():
                self.display.say(
                    f"each machine reads the corpus ({stored / 1e9:,.0f} GB) before its first "
                    "training, to compare it with its checksums"
                )

    @property
    def corpus(self) -> Corpus:
        """What our proxies and promotions read.

        Raises:
            StudyError: the study has domains that only its own trainer reads.
        """
        if not isinstance(self.data, Corpus):
            raise StudyError(
                "the study has no corpus, and this needs one",
                where=str(self.study.path),
                hint="Its trainer reads the domains; mixopt knows only their tokens",
            )
        return self.data

    @cached_property
    def baselines(self) -> dict[str, Mixture]:
        """What candidates are compared with, by name; the one to beat first."""
        return self.study.baselines(self.data)

    @cached_property
    def model(self) -> ModelConfig:
        """Shape of the proxies."""
        return proxy_model(self.study, self.corpus)

    @cached_property
    def fidelity(self) -> Fidelity:
        """Size and tokens of the proxies."""
        return proxy_fidelity(self.study, self.data)

    @cached_property
    def resources(self) -> Resources:
        """What a training asks of the cluster."""
        return study_resources(self.study)

    def recipe(self, purpose: measured.Purpose) -> Recipe:
        """How proxies or promoted models are trained, with `precision: auto` resolved for good.

        Measured on the cluster the first time; the answer is kept in the study folder. Evaluations
        are cut to what they may cost: of all proxies alike, and of all stages of a promotion, so
        that their scores are of the same text.
        """
        asked, recipe = self._affordable(purpose)
        if recipe.precision != "auto":
            return recipe
        chosen = measured.precision(self.home, purpose, lambda: self._measure_precision(asked))
        return dataclasses.replace(recipe, precision=chosen)

    def larger_recipe(self) -> Recipe:
        """How trials at `select.at` are trained: as proxies, with what that size can afford."""
        fidelity = larger_fidelity(self.study, self.data)
        assert fidelity is not None
        sets = len(self.corpus.validation_domains) + len(self.study.tasks)
        recipe = self.study.proxy.recipe
        affordable = recipe.affordable(fidelity.tokens, sets, len(self.weighed))
        return dataclasses.replace(affordable, precision=self.recipe("proxy").precision)

    def evaluation_recipe(self) -> Recipe:
        """How promoted models are evaluated that are not trained: in fp32 if `precision: auto`."""
        _, recipe = self._affordable("promote")
        chosen = "fp32" if recipe.precision == "auto" else recipe.precision
        return dataclasses.replace(recipe, precision=chosen)

    def _affordable(self, purpose: measured.Purpose) -> tuple[Proxy | Promote, Recipe]:
        """The section of trainings of that kind, and its recipe with evaluations cut."""
        proxy, promote = self.study.proxy, self.study.promote
        asked = proxy if purpose == "proxy" or promote is None else promote
        sets = len(self.corpus.validation_domains) + len(self.study.tasks)
        return asked, asked.recipe.affordable(asked.tokens_each, sets, len(self.weighed))

    def _measure_precision(self, asked: Proxy | Promote) -> measured.Precision:
        from mixopt.workers.measured import resolved

        self.connect()
        model = asked.model.of_text(self.corpus.vocab_size, self.corpus.end_of_text_id)
        return resolved(model, asked.recipe, self.resources, self.display.warn).precision

    def largest_cohort(self) -> int:
        """How many trials train fastest as one: measured on the cluster the first time."""
        return measured.cohort_size(self.home, self._measure_cohort)

    def _measure_cohort(self) -> int:
        from mixopt.workers.measured import cohort

        self.connect()
        return cohort(self.model, self.recipe("proxy"), self.resources, self.display.warn)

    def cohorts(self, trials: Sequence[Trial]) -> list[Cohort]:
        """The cohorts of `trials`, none of which has ended: as they were packed, then new ones.

        New ones are packed for the connected cluster.
        """
        larger = any(trial.spec.role is Role.TRANSFER for trial in trials)
        alone = self.study.trainer is not None or larger  # the cohort's size is that of proxies
        asked = 1 if alone else self.study.ray.cohort
        packed, fresh = self.packing.packed(trials, None if asked == "auto" else asked)
        if not fresh:
            return packed
        if asked != "auto":
            return [*packed, *self.packing.form(fresh, asked)]
        slots = cluster_slots(self.resources)
        if len(fresh) <= slots and not measured.has_cohort_size(self.home):
            return [*packed, *self.packing.form(fresh, most=1)]  # nothing to measure for
        return [*packed, *self.packing.form(fresh, self.largest_cohort(), slots)]

    @cached_property
    def packing(self) -> Packing:
        """Packs trials that train together."""
        return Packing(self.home, self.work, self.ledger)

    @cached_property
    def kept_domains(self) -> tuple[str, ...]:
        """Validation domains whose tokens' losses the search's trials keep for its proposer."""
        return kept_domains(self.study)

    @cached_property
    def weighed(self) -> tuple[str, ...]:
        """Validation domains and tasks that the objective weighs; of our proxies."""
        return self.study.weighed(self.corpus)

    @property
    def verified(self) -> str:
        """The folder that remembers which machines compared the corpus with its checksums."""
        return str(self.home / VERIFIED)

    @property
    def home(self) -> Path:
        """The study folder."""
        return self.study.home

    def flops(self, model: ModelConfig, tokens: int) -> float:
        """Training FLOPs of `tokens` tokens."""
        length = self.study.proxy.recipe.sequence_length
        return TRAINING_PER_FORWARD * model.flops_per_token(length) * tokens

    @cached_property
    def trial_flops(self) -> float:
        """Training FLOPs of a trial; in its trainer's tokens where no size is known."""
        if self.study.trainer is None:
            return self.flops(self.model, self.fidelity.tokens)
        return self.own_flops(self.fidelity.params, self.fidelity.tokens)

    def own_flops(self, params: int, tokens: int) -> float:
        """Training FLOPs of a trainer of the user's: 6 for each parameter and token."""
        return 2.0 * TRAINING_PER_FORWARD * params * tokens

    @cached_property
    def larger_flops(self) -> float:
        """Training FLOPs of a trial at `select.at`, as `trial_flops`; 0 where there is none."""
        fidelity = larger_fidelity(self.study, self.data)
        if fidelity is None:
            return 0.0
        if self.study.trainer is None:
            return self.flops(larger_model(self.study, self.corpus), fidelity.tokens)
        return 2.0 * TRAINING_PER_FORWARD * fidelity.params * fidelity.tokens

    @cached_property
    def training(self) -> str:
        """Identity of all that a trial depends on but mixture, fidelity and seed."""
        return training_hash(self.study, self.data)

    @cached_property
    def needed_metrics(self) -> tuple[str, ...]:
        """Metrics that a trainer of the user's has to measure: weighed ones and guarded ones."""
        guarded = (guardrail.metric for guardrail in self.study.guarded())
        return tuple(dict.fromkeys((*self.objective.metrics, *guarded)))

    def show(self) -> bool:
        """Bring MLflow up to date with the ledger and the folder; whether it is."""
        ledger = self.ledger
        return self.tracker.sync(ledger.trials(), ledger.holdout(), ledger.overruled())

    def _own_work(self, trial: Trial, folder: Path, identity: str) -> Work:
        """The training that `trial` asks of the study's own trainer."""
        study, spec = self.study, trial.spec
        assert study.trainer is not None
        job = TrainingJob(
            study=study.name,
            trial=str(trial.number),
            mixture=spec.mixture.as_dict(),
            tokens=spec.fidelity.tokens,
            seed=spec.seed,
            fidelity=dataclasses.replace(
                spec.fidelity, params=spec.fidelity.params if spec.fidelity.params_known else 0
            ),
            folder=str(folder),
            metrics=self.needed_metrics,
            domains=job_domains(self.data, token_limits(study, self.data, spec.fidelity.tokens)),
            corpus=str(self.data.path) if isinstance(self.data, Corpus) else None,
            settings=study.trainer.settings,
            gpus=self.resources.gpus,
            identity=identity,
            trainer=self.trainer.digest(),
        )
        own = OwnJob(
            self.trainer,
            job,
            trial.limits,
            study.trainer.timeout,
            study.trainer.heartbeat,
            study.trainer.grace,
        )
        return Work(str(trial.number), own, str(folder), identity, verified=self.verified)

    @cached_property
    def trainer(self) -> Trainer:
        """The study's own trainer."""
        assert self.study.trainer is not None
        return self.study.trainer.made(self.study.path.parent)

    def identity(self, trial: Trial) -> str:
        """What the completion marker of `trial` carries."""
        alone = trial.spec.training_hash(self.data.hash, self.training)
        return alone if trial.limits is None else digest([alone, trial.limits.to_json()])

    def work(self, trial: Trial) -> Work:
        """The training that `trial` asks for, alone."""
        spec, limits = trial.spec, trial.limits
        folder, identity = trial_folder(self.home, trial.number), self.identity(trial)
        if self.study.trainer is not None:
            return self._own_work(trial, folder, identity)
        larger = spec.role is Role.TRANSFER
        job = Job(
            model=larger_model(self.study, self.corpus) if larger else self.model,
            recipe=self.larger_recipe() if larger else self.recipe("proxy"),
            corpus=str(self.study.corpus_path),
            mixtures=(spec.mixture,),
            seeds=(spec.seed,),
            tokens=spec.fidelity.tokens,
            token_limits=token_limits(self.study, self.data, spec.fidelity.tokens),
            identity=identity,
            tasks=self.tasks,
            weighed=self.weighed,
            limits=None if limits is None else (limits,),
        )
        learned = spec.role in SEARCH_ROLES
        return Work(
            str(trial.number),
            job,
            str(folder),
            identity,
            keep_tokens=self.kept_domains if learned else (),
            verified=self.verified,
        )


@contextlib.contextmanager
def open_session(
    path: Path, display: Display | None = None, *, trains: bool = False
) -> Iterator[Session]:
    """Open the study at `path`; no other driver can while the block runs.

    A study that is refused leaves its folder as it was, so that its file can be corrected.

    Args:
        path: of the study file.
        display: where progress is shown; the console if not given.
        trains: whether something may be trained: models that the study imports are found first.

    Raises:
        StudyError: the file is not valid, its settings differ from the folder's, or a model that it
            imports cannot be used.
        CorpusError: the corpus is absent or broken, or a task's file is no file of questions.
        LedgerError: another driver holds the study, or its storage cannot be reached or belongs to
            another study.
    """
    study = load_study(path)
    import_named_parts(study)
    data = study.open_data()
    check(study, data)
    objective, space = study.mixture_objective(), study.mixture_space(data)
    display = display or Display(make_console())
    models = import_models(study, data, display.say) if trains else None
    with locks.hold(study.home / "driver.lock", f"study {study.name}", patience=5.0):
        tasks: dict[str, str] = {}
        if isinstance(data, Corpus):
            prepared = prepare_tasks(study, data, study.home / "tasks")
            tasks = {name: str(path) for name, path in prepared.items()}
        if not (study.home / LOCKED).exists():  # deleted, of trials with other settings?
            claim(study.home, study_binding(study, data))
        if changed := take_changed_trainer(study, data):
            display.say(changed)
        lock_settings(study, data)
        if note := overrides_note(read_overrides(study.home), study.overrides):
            display.say(f"{study.name} {note}")
        keep_overrides(study.home, study.overrides)
        owner = claim(study.home, study_binding(study, data))
        ledger = Ledger.open(study.ledger_url, study.name, objective, owner)
        artifact = partial(registry_folder, study)
        tracker = Tracker.open(study, owner, on_warning=display.warn, artifact=artifact)
        with contextlib.ExitStack() as stack:
            stack.callback(ledger.close)
            stack.callback(tracker.close)
            yield Session(
                study,
                data,
                space,
                objective,
                ledger,
                tracker,
                display,
                stack,
                tasks=tasks,
                models=models,
            )
