"""A study that is being worked on: its file, corpus, space, ledger and views, opened together.

Everything durable is under `study.home`:

    study.json        the settings that this folder is frozen to
    driver.lock       who works on it now
    ledger.db         the ledger (unless the study file names another storage)
    precision.json    fp32 or bf16, settled once for all trainings
    trials/0007/      checkpoint, curve, attempts, completion marker of trial 7
    verdict.json      what selection found, and the mixture to promote (mixture.json)
    promotion/…/      stages, weights and result of a promotion
    report.html, mlflow.db
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from mixopt import files, locks, proposers
from mixopt.corpus.shards import Corpus
from mixopt.errors import TrainingError
from mixopt.ledger import Ledger
from mixopt.models.config import ModelConfig
from mixopt.objective import Objective
from mixopt.recipe import Recipe
from mixopt.records import trial_folder
from mixopt.space import MixtureSpace
from mixopt.study import Study, freeze, load_study
from mixopt.trials import Failure, Fidelity, Outcome, Role, Trial, TrialResult, TrialSpec
from pipelines.console import Display, make_console
from pipelines.tracking import Tracker
from proxies.job import Job
from workers.cluster import Resources, connect
from workers.proxy_task import Work

TRAINING_PER_FORWARD = 3  # a backward pass costs twice its forward pass


@dataclass
class Session:
    """An open study. Made by `open_session`, which holds the study's lock as long as it lives."""

    study: Study
    corpus: Corpus
    space: MixtureSpace
    objective: Objective
    ledger: Ledger
    tracker: Tracker
    display: Display
    _stack: contextlib.ExitStack
    _where: str = ""

    def connect(self) -> None:
        """Be connected to Ray until the session ends.

        Called where work begins, so that a finished study starts no cluster to say so.
        """
        if not self._where:
            self._where = self._stack.enter_context(connect(self.study.ray.address))
            self.display.say(f"[bold]{self.study.name}[/]: {self._where}")

    @cached_property
    def model(self) -> ModelConfig:
        """Shape of the proxies."""
        return self.study.proxy_model(self.corpus)

    @cached_property
    def fidelity(self) -> Fidelity:
        """Size and tokens of the proxies."""
        return self.study.proxy_fidelity(self.corpus)

    @cached_property
    def resources(self) -> Resources:
        """What a training asks of the cluster."""
        ray = self.study.ray
        return Resources(ray.cpus_per_trial, ray.gpus_per_trial, ray.attempts)

    def recipe(self, purpose: Literal["proxy", "promote"]) -> Recipe:
        """How proxies or promoted models are trained, with `precision: auto` settled for good.

        Measured on the cluster the first time; the answer is kept in the study folder.
        """
        proxy, promote = self.study.proxy, self.study.promote
        asked = proxy if purpose == "proxy" or promote is None else promote
        if asked.recipe.precision != "auto":
            return asked.recipe
        path = self.home / "precision.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        if purpose not in known:
            from workers.precision import settled

            self.connect()
            model = dataclasses.replace(asked.model, vocab_size=self.corpus.vocab_size)
            known[purpose] = settled(model, asked.recipe, self.resources).precision
            files.write_json(path, known)
        return dataclasses.replace(asked.recipe, precision=known[purpose])

    @cached_property
    def kept_domains(self) -> tuple[str, ...]:
        """Validation domains whose tokens' losses the search's trials keep for its proposer."""
        if not proposers.find(self.study.search.proposer).needs_token_losses:
            return ()
        return tuple(name.removeprefix("bpb/") for name in self.objective.metrics)

    @property
    def home(self) -> Path:
        """The study folder."""
        return self.study.home

    def flops(self, model: ModelConfig, tokens: int) -> float:
        """Training FLOPs of `tokens` tokens."""
        length = self.study.proxy.recipe.sequence_length
        return TRAINING_PER_FORWARD * model.flops_per_token(length) * tokens

    def work(self, trial: Trial) -> Work:
        """The training that `trial` asks for."""
        spec = trial.spec
        folder = trial_folder(self.home, trial.number)
        identity = spec.training_hash(self.corpus.hash, self.study.training_hash(self.corpus))
        job = Job(
            model=self.model,
            recipe=self.recipe("proxy"),
            corpus=str(self.study.corpus_path),
            mixtures=(spec.mixture,),
            seeds=(spec.seed,),
            tokens=spec.fidelity.tokens,
            token_limits=self.study.token_limits(self.corpus),
            identity=identity,
        )
        kept = () if spec.role is Role.SELECT else self.kept_domains  # no search learns from it
        return Work(str(trial.number), job.to_json(), str(folder), identity, keep_tokens=kept)


@contextlib.contextmanager
def open_session(path: Path, display: Display | None = None) -> Iterator[Session]:
    """Open the study at `path` to work on it; nobody else can while the block runs.

    Raises:
        StudyError: the file is not valid, or its settings differ from the folder's.
        CorpusError: the corpus is absent or broken.
        LedgerError: another driver holds the study, or its storage cannot be reached.
    """
    study = load_study(path)
    corpus = study.open_corpus()
    display = display or Display(make_console())
    with locks.hold(study.home / "driver.lock", f"study {study.name}", patience=5.0):
        freeze(study, corpus)
        objective = study.mixture_objective()
        ledger = Ledger.open(study.ledger_url, study.name, objective)
        tracker = Tracker.open(study, on_warning=display.warn)
        space = study.mixture_space(corpus)
        with contextlib.ExitStack() as stack:
            stack.callback(ledger.close)
            yield Session(study, corpus, space, objective, ledger, tracker, display, stack)


def run_trials(session: Session, label: str, specs: Sequence[Trial]) -> list[Trial]:
    """Train the trials that are not finished, on the connected cluster, and record each as it ends.

    Returns:
        The trials as the ledger has them now, all finished.

    Raises:
        CorpusError: a worker met bad data.
        TrainingError: a worker crashed.
    """
    from workers import driver

    ledger, display = session.ledger, session.display
    todo = [t for t in specs if not t.ended]
    cost = session.flops(session.model, session.fidelity.tokens)
    if not todo:
        display.skip(cost * len(specs))
        return list(specs)
    session.connect()
    over = {str(t.number): cost for t in specs if t.ended}
    with display.phase(label, cost * len(specs), len(specs), over):
        for event in driver.run([session.work(t) for t in todo], session.resources):
            number = int(event.key)
            match event:
                case driver.Started():
                    ledger.start(number)
                case driver.Progressed():
                    done = cost * event.tokens / session.fidelity.tokens
                    display.progress(event.key, done, event.tokens_per_second)
                case driver.Finished(outcomes=[Outcome(result=TrialResult() as result)]):
                    session.tracker.trial(ledger.complete(number, result))
                    display.finished(event.key, cost)
                case driver.Finished(outcomes=[Outcome(failure=Failure() as why, message=said)]):
                    session.tracker.trial(ledger.fail(number, why, said))
                    display.finished(event.key, cost)
                    display.warn(f"trial {number} {why}: {said}; it counts as no score")
                case driver.Failed(final=True):
                    failed = ledger.fail(number, event.failure, event.message)
                    session.tracker.trial(failed)
                    display.warn(f"trial {number} failed: {event.failure}")
                case driver.Failed():
                    ledger.note(number, event.message)
                    display.warn(f"trial {number}: {event.failure}, trying again")
                case _:
                    raise TrainingError(f"one proxy was asked for, but {event} came back")
    return [ledger.trial(t.number) for t in specs]


def add_missing(session: Session, specs: Sequence[TrialSpec]) -> list[Trial]:
    """The trials of `specs`: those that the ledger has already, and new ones for the rest.

    A driver that was killed between two additions adds what is missing and nothing twice.
    """
    known = session.ledger.trials()
    free = {t.number: t for t in known}
    found = []
    for spec in specs:
        same = next((t for t in free.values() if t.spec == spec), None)
        if same is not None:
            del free[same.number]
        found.append(same or session.ledger.add(spec))
    return found
