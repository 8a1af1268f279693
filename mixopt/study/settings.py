"""The study file: one YAML that says what is searched, with what, and what is promoted.

`load_study` reads and validates it; errors name the line and the fix. The sections' settings are
in `sections.py`; which of them a study's folder locks is in `locked.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mixopt import surrogates
from mixopt.core import urls
from mixopt.core.errors import MixtureError, StudyError
from mixopt.core.formatting import count
from mixopt.core.guardrails import Guardrail
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.registry import is_own
from mixopt.core.space import LinearConstraint, MixtureSpace
from mixopt.core.trials import Fidelity
from mixopt.corpus.questions import Questions
from mixopt.corpus.shards import Corpus
from mixopt.io import yaml_lines
from mixopt.models.config import ModelConfig
from mixopt.search import designs, proposers
from mixopt.selection.candidates import NATURAL
from mixopt.study.baselines import Baselines, checked_baselines, resolve_baselines
from mixopt.study.data import DeclaredDomains, DomainTokens, TrainingData, short_domain
from mixopt.study.guards import Guard, short_guard
from mixopt.study.overrides import current_overrides
from mixopt.study.own_parts import import_from_folder
from mixopt.study.own_trainer import Trainer, short_trainer
from mixopt.study.promote import Promote
from mixopt.study.sections import (
    Mlflow,
    Notify,
    Proxy,
    Ray,
    Search,
    Section,
    Select,
    Space,
    TaskFile,
    short_notify,
    short_task,
    without_spaces,
)

if TYPE_CHECKING:
    from mixopt.corpus.tasks import Task


class Study(Section):
    """A whole study file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the folder and the MLflow runs."""
    corpus: str | None = None
    """Folder made by `mixopt corpus build`, relative to this file."""
    domains: Annotated[
        dict[str, Annotated[DomainTokens, BeforeValidator(short_domain)]] | None,
        Field(min_length=2, validate_default=True),
    ] = None
    """In place of a corpus, where the trainer is your own: domain → tokens that there are."""
    trainer: Annotated[
        Trainer | None, BeforeValidator(short_trainer), Field(validate_default=True)
    ] = None
    """What trains: null is our proxies; or a command or function of yours (docs/trainers.md)."""
    folder: str | None = None
    """Where everything durable lives; null is a folder of the study's name beside this file."""
    ledger: str | None = None
    """Storage URL, such as postgresql://… (needs mixopt[postgres]); null: SQLite in the folder."""
    seed: int = Field(default=0, ge=0)
    """Seeds the design, the proposals and the trainings."""
    objective: dict[str, float] = Field(min_length=1)
    """Validation domain (or metric: bpb/law, task/exam) → weight; lower bits per byte is better.
    With a trainer of your own: names of its metrics (see `metrics`)."""
    metrics: dict[str, Literal["lower", "higher"]] = Field(default={})
    """Metric → which of its values are better; lower for those left out."""
    guardrails: dict[str, Annotated[Guard, BeforeValidator(short_guard)]] = Field(default={})
    """Metric → how much worse than the baseline's what is promoted may make it: `{law: 1%}`."""
    tasks: dict[str, Annotated[TaskFile, BeforeValidator(short_task)]] = Field(default={})
    """Questions that every trial is evaluated on: name → JSONL file (metric task/name)."""
    baseline: Annotated[Baselines, BeforeValidator(checked_baselines)] = NATURAL
    """What to beat: natural, uniform, {web: 0.6, code: 0.4}, a CSV or JSON file, or several."""
    space: Space = Space()
    proxy: Proxy = Proxy()
    search: Search = Search()
    select: Select = Select()
    promote: Promote | None = Promote()
    mlflow: Mlflow = Mlflow()
    ray: Ray = Ray()
    notify: Annotated[Notify | None, BeforeValidator(short_notify)] = None
    """Who is told when a command has ended: a webhook's URL, or {url: …, command: …}."""

    _path: Path = PrivateAttr(default=Path("study.yaml"))
    _overrides: tuple[str, ...] = PrivateAttr(default=())
    _ledger_without_spaces = field_validator("ledger")(without_spaces)

    @model_validator(mode="before")
    @classmethod
    def _promoted_only_if_asked(cls, values: Any) -> Any:
        """A trainer of the user's is not followed by a promotion of ours unasked."""
        if isinstance(values, dict) and values.get("trainer") is not None:
            return {"promote": None, **values}
        return values

    @field_validator("domains")
    @classmethod
    def _corpus_or_domains(
        cls, domains: dict[str, DomainTokens] | None, info: ValidationInfo
    ) -> dict[str, DomainTokens] | None:
        if "corpus" in info.data and (domains is None) == (info.data["corpus"] is None):
            raise ValueError(
                "name a corpus or the domains' tokens" + (", not both" if domains else "")
            )
        return domains

    @field_validator("trainer")
    @classmethod
    def _reads_the_domains(cls, trainer: Trainer | None, info: ValidationInfo) -> Trainer | None:
        if trainer is None and info.data.get("domains") is not None:
            raise ValueError("domains without a corpus need a trainer of your own that reads them")
        return trainer

    @field_validator("objective")
    @classmethod
    def _some_weight(cls, weights: dict[str, float]) -> dict[str, float]:
        if not any(weights.values()):
            raise ValueError("every weight is 0, so nothing would be optimized")
        return weights

    @field_validator("metrics")
    @classmethod
    def _weights_count_what_is_better(
        cls, metrics: dict[str, Literal["lower", "higher"]], info: ValidationInfo
    ) -> dict[str, Literal["lower", "higher"]]:
        for name, weight in info.data.get("objective", {}).items():
            if metrics.get(name) == "higher" and weight < 0:
                raise ValueError(f"{name!r} is better higher, so its weight is not to be negative")
        return metrics

    @field_validator("tasks")
    @classmethod
    def _tasks_of_our_proxies(
        cls, tasks: dict[str, TaskFile], info: ValidationInfo
    ) -> dict[str, TaskFile]:
        if tasks and info.data.get("trainer") is not None:
            raise ValueError("only our proxies answer them; let your trainer give the metrics")
        return tasks

    @field_validator("proxy")
    @classmethod
    def _shape_of_our_proxies(cls, proxy: Proxy, info: ValidationInfo) -> Proxy:
        if info.data.get("trainer") is not None:
            for key in ("model", "recipe"):
                if key in proxy.model_fields_set:
                    raise ValueError(f"{key}: your trainer has its own; give it trainer.settings")
        elif proxy.params is not None:
            raise ValueError("params: our proxies have those of proxy.model")
        return proxy

    @field_validator("select")
    @classmethod
    def _at_another_size(cls, select: Select, info: ValidationInfo) -> Select:
        at, proxy = select.at, info.data.get("proxy")  # absent where it is not valid itself
        if at is None or proxy is None:
            return select
        own = info.data.get("trainer") is not None
        if own and at.model is not None:
            raise ValueError("at.model: your trainer has its own; write at.params or at.tokens")
        if not own and at.params is not None:
            raise ValueError("at.params: our proxies have those of at.model")
        same = (proxy.params, proxy.tokens) if own else (proxy.model, proxy.tokens)
        size = at.params if own else at.model
        if (size or same[0], at.tokens or same[1]) == same:
            raise ValueError("at: the size is that of the proxies; write more tokens or a model")
        if at.tokens is not None and at.tokens < proxy.tokens:
            raise ValueError(f"at.tokens: are fewer than the proxies' {count(proxy.tokens)}")
        return select

    @field_validator("search")
    @classmethod
    def _evaluated_on_the_way(cls, search: Search, info: ValidationInfo) -> Search:
        proxy = info.data.get("proxy")  # absent where it is not valid itself
        if info.data.get("trainer") is not None:
            return search  # it reports its evaluations as it likes
        if search.pruner is not None and proxy is not None:
            evaluations = proxy.recipe.evaluations
            last = (evaluations - 1) / evaluations
            if last < max(search.pruner.warmup, 1e-9):
                raise ValueError(
                    f"pruner: no trial would ever be pruned, for of {evaluations} evaluations none "
                    f"comes after a warm-up of {search.pruner.warmup:g} and before the end; raise "
                    "proxy.recipe.evaluations"
                )
        return search

    @field_validator("tasks")
    @classmethod
    def _names_of_tasks(cls, tasks: dict[str, TaskFile]) -> dict[str, TaskFile]:
        for name in tasks:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
                raise ValueError(f"a task's name is of letters, digits and ._-, not {name!r}")
        return tasks

    @property
    def path(self) -> Path:
        """The file that this study was read from."""
        return self._path

    @property
    def overrides(self) -> tuple[str, ...]:
        """What the command line set in place of the file: `key=value` each."""
        return self._overrides

    def place(self, key: str) -> str:
        """`file:line: key` of a dotted key of the file, or the override that set it."""
        return yaml_lines.place_in(self._path, key, self._overrides)

    @property
    def home(self) -> Path:
        """The study folder, absolute."""
        return (self._path.parent / (self.folder or self.name)).absolute()

    @contextlib.contextmanager
    def naming(self, key: str = "") -> Iterator[None]:
        """Errors that the block raises about this study name its file and `key` too.

        Raises:
            StudyError: in place of a MixtureError or StudyError of the block.
        """
        try:
            yield
        except (MixtureError, StudyError) as error:
            place = ".".join(part for part in (key, error.where) if part)
            where = f"{self.path}: {place}" if place else str(self.path)
            raise StudyError(error.what, where=where, hint=error.hint) from error

    @property
    def corpus_path(self) -> Path:
        """The corpus folder, absolute.

        Raises:
            StudyError: the study has none.
        """
        if self.corpus is None:
            raise StudyError(
                "the study has no corpus, and this needs one",
                where=str(self.path),
                hint="Its trainer reads the domains; mixopt knows only their tokens",
            )
        return (self._path.parent / self.corpus).absolute()

    @property
    def elsewhere(self) -> bool:
        """Whether trials are trained by other means: asked for and told."""
        return self.trainer is not None and self.trainer.elsewhere

    @property
    def ledger_url(self) -> str:
        """Optuna storage URL."""
        return self.ledger or urls.sqlite(self.home / "ledger.db")

    @property
    def upcycling(self) -> Promote | None:
        """The promotion, where it is by our upcycling; None without one, or by another trainer."""
        promote = self.promote
        return promote if promote is not None and promote.trainer is None else None

    @property
    def budget(self) -> int:
        """Tokens of the run that the mixture is for."""
        if self.space.budget is not None:
            return self.space.budget
        return self.promote.tokens if self.promote is not None else self.proxy.tokens

    def training_data(self) -> TrainingData:
        """The corpus of this study, opened for reading; or the domains that its file declares.

        Raises:
            CorpusError: it is absent or broken.
        """
        if self.domains is None:
            return Corpus.open(self.corpus_path)
        paths = {name: d.path for name, d in self.domains.items() if d.path is not None}
        return DeclaredDomains({name: d.tokens for name, d in self.domains.items()}, paths)

    def open_data(self) -> TrainingData:
        """As `training_data`, with the objective and the space checked against it.

        Raises:
            CorpusError: it is absent or broken.
            StudyError: the objective names a metric that our proxies have not, or the space a
                domain that is not there.
        """
        data = self.training_data()
        if self.trainer is None and isinstance(data, Corpus):
            self._check_objective(data)
        named = [*self.space.bounds, *(d for c in self.space.linear for d in c.weights)]
        for name in named:
            if name not in data.domains:
                raise StudyError(
                    f"there is no training domain {name!r}",
                    where=f"{self.path}: space",
                    hint=f"Choose from {', '.join(data.domains)}",
                )
        return data

    def _check_objective(self, corpus: Corpus) -> None:
        """Refuse an objective over what our proxies do not measure.

        Raises:
            StudyError: it names no domain of `corpus`, and no task.
        """
        domains = corpus.validation_domains
        scores = [f"{kind}/{name}" for name in self.tasks for kind in ("task", "accuracy")]
        for name in (*self.objective, *self.guardrails):
            if name.removeprefix("bpb/") not in domains and name not in scores:
                raise StudyError(
                    f"there is no validation domain and no task's metric {name!r}",
                    where=f"{self.path}: {'objective' if name in self.objective else 'guardrails'}",
                    hint=f"Choose from {', '.join([*domains, *scores])}",
                )

    def weighed(self, corpus: Corpus) -> tuple[str, ...]:
        """Validation domains and tasks that the objective weighs."""
        metrics = self.mixture_objective().metrics
        counted = {name.partition("/")[2] for name in metrics}  # own trainers' names need no slash
        return tuple(n for n in (*corpus.validation_domains, *self.tasks) if n in counted)

    def import_own_parts(self) -> None:
        """Import every `package.module:Name` that the file names, before anything is trained.

        Raises:
            StudyError: one does not import, or is no part of its kind.
        """
        with self.naming():
            if is_own(self.search.surrogate):
                surrogates.find(self.search.surrogate)
            if is_own(self.search.proposer):
                proposers.find(self.search.proposer)
            if self.upcycling is not None:
                self._import_upcycling(self.upcycling)
            for model in self._models():
                if is_own(model.router) and not model.dense:
                    model.settings.check(model)

    def _import_upcycling(self, promote: Promote) -> None:
        if is_own(promote.upcycler):
            from mixopt.models.upcycling.base import upcycler_class  # imports torch

            upcycler_class(promote.upcycler)
        if is_own(promote.merge):
            from mixopt.models.upcycling.merges import merge_class  # imports torch

            merge_class(promote.merge)
        if is_own(promote.router_start):
            from mixopt.models.upcycling.router_starts import router_start_class  # imports torch

            router_start_class(promote.router_start)

    def _models(self) -> list[ModelConfig]:
        return [self.proxy.model, *([self.upcycling.model] if self.upcycling else [])]

    def prepare_tasks(self, corpus: Corpus, folder: Path) -> dict[str, Path]:
        """Task → file of its questions as tokens in `folder`, made where it is not there.

        Raises:
            CorpusError: a task's file cannot be read, or a line of it is no question.
            StudyError: the objective weighs the accuracy of a task without choices.
        """
        recipes = [self.proxy.recipe, *([self.upcycling.recipe] if self.upcycling else [])]
        longest = min(recipe.sequence_length for recipe in recipes)
        prepared = {t.name: t.prepare(corpus, folder, longest) for t in self._all_tasks()}
        for name, path in prepared.items():
            if f"accuracy/{name}" in self.objective and Questions.read(path).choices.max() < 2:
                raise StudyError(
                    f"task {name!r} has no choices, so no accuracy",
                    where=f"{self.path}: objective",
                    hint=f"Weigh task/{name}",
                )
        return prepared

    def task_keys(self, corpus: Corpus) -> dict[str, str]:
        """Task → identity of its questions.

        Raises:
            CorpusError: a task's file cannot be read.
        """
        return {task.name: task.key(corpus) for task in self._all_tasks()}

    def _all_tasks(self) -> list[Task]:
        from mixopt.corpus.tasks import Task  # imports the tokenizers library

        here = self._path.parent
        return [Task(name, here / t.path, t.limit) for name, t in self.tasks.items()]

    def mixture_objective(self) -> Objective:
        """The objective over metrics: lower is better, so weights of those better higher turn.

        Metrics have the names that the trainer gives them: only of our proxies does `law` mean
        `bpb/law`.

        Raises:
            StudyError: the weights are no objective.
        """
        turned = {
            name: -weight if self.metrics.get(name) == "higher" else weight
            for name, weight in self.objective.items()
        }
        with self.naming():
            return Objective(turned) if self.trainer is None else Objective(turned, prefix="")

    def guarded(self) -> tuple[Guardrail, ...]:
        """The guardrails, by the full names of their metrics."""
        prefix = "bpb/" if self.trainer is None else ""
        return tuple(
            guard.guardrail(
                name if "/" in name else f"{prefix}{name}",
                higher=self.metrics.get(name) == "higher",
            )
            for name, guard in self.guardrails.items()
        )

    def baselines(self, data: TrainingData) -> dict[str, Mixture]:
        """The baselines by name, the one to beat first.

        Raises:
            StudyError: a file cannot be read, or one is no mixture of the study's domains.
        """
        with self.naming_line("baseline"):
            return resolve_baselines(self.baseline, data.natural, self._path.parent)

    @contextlib.contextmanager
    def naming_line(self, key: str) -> Iterator[None]:
        """As `naming`, with the line; an error that names a file already keeps it.

        Raises:
            StudyError: in place of a MixtureError or StudyError of the block.
        """
        try:
            yield
        except (MixtureError, StudyError) as error:
            where, below = error.where, f"{key}.{error.where}".removesuffix(".")
            if not where.startswith(str(self._path.parent)):
                where = self.place(below)
            raise StudyError(error.what, where=where, hint=error.hint) from error

    def mixture_space(self, data: TrainingData) -> MixtureSpace:
        """The space that the mixture may move in, given how much there is of each domain.

        Raises:
            StudyError: no mixture satisfies the constraints.
        """
        first, baseline = next(iter(self.baselines(data).items()))
        with self.naming("space"):
            return self._mixture_space(data, None if first == NATURAL else baseline)

    def _mixture_space(self, data: TrainingData, baseline: Mixture | None) -> MixtureSpace:
        bounds = self.space.bounds
        return MixtureSpace(
            domains=data.domains,
            natural=data.natural,
            lower={name: low for name, (low, _) in bounds.items()},
            upper={name: high for name, (_, high) in bounds.items()},
            available_tokens=data.tokens,
            max_epochs=self.space.max_epochs,
            budget_tokens=self.budget,
            linear=tuple(LinearConstraint(c.weights, c.at_most) for c in self.space.linear),
            kl_penalty=self.space.kl_penalty,
            baseline=baseline,
        )

    def proxy_model(self, corpus: Corpus) -> ModelConfig:
        """The proxies' shape with the vocabulary of the corpus."""
        return self.proxy.model.of_text(corpus.vocab_size, corpus.end_of_text_id)

    def proxy_fidelity(self, data: TrainingData) -> Fidelity:
        """Size and tokens of this study's proxies; of a trainer that tells no size, 1 parameter."""
        if self.trainer is not None:
            return Fidelity("proxy", self.proxy.params or 1, self.proxy.tokens)
        assert isinstance(data, Corpus)  # our proxies read one
        return Fidelity("proxy", self.proxy_model(data).active_params(), self.proxy.tokens)

    def larger_model(self, corpus: Corpus) -> ModelConfig:
        """The shape at `select.at`, with the vocabulary of the corpus."""
        at = self.select.at
        shape = self.proxy.model if at is None or at.model is None else at.model
        return shape.of_text(corpus.vocab_size, corpus.end_of_text_id)

    def larger_fidelity(self, data: TrainingData) -> Fidelity | None:
        """Size and tokens of `select.at`; None where the study has none.

        Its name is unlike that of another shape with as many parameters.
        """
        at = self.select.at
        if at is None:
            return None
        tokens = at.tokens or self.proxy.tokens
        if self.trainer is not None:
            return Fidelity("larger", at.params or self.proxy.params or 1, tokens)
        assert isinstance(data, Corpus)  # our proxies read one
        model = self.larger_model(data)
        name = f"larger {digest(model.to_json())[:8]}"
        return Fidelity(name, model.active_params(), tokens)

    def token_limits(self, data: TrainingData, tokens: int | None = None) -> dict[str, int] | None:
        """Tokens of each domain that a proxy may see, so that it repeats as the promoted run would.

        None where the whole domain may be seen: the proxies are as long as the promoted run.

        Args:
            data: of the study.
            tokens: of the training; those of a proxy if not given.
        """
        share = (tokens or self.proxy.tokens) / self.budget
        if not self.proxy.simulate_repetition or share >= 1:
            return None
        least = self.proxy.recipe.sequence_length if self.trainer is None else 1
        return {name: max(least, int(n * share)) for name, n in data.tokens.items()}

    def initial_design(self, space: MixtureSpace) -> list[Mixture]:
        """The mixtures of the design, before repeats.

        Raises:
            StudyError: the space does not hold so many.
        """
        with self.naming():
            return designs.design(space, self.search.trials, self.seed, self.search.design)

    def training_hash(self, data: TrainingData) -> str:
        """Identity of all that a result depends on but mixture, fidelity and seed.

        Raises:
            StudyError: a file that the trainer depends on cannot be read.
        """
        limits = self.token_limits(data)
        if self.trainer is not None:
            with self.naming():
                identity = self.trainer.identity(self.path.parent)
            return digest({"trainer": identity, "limits": limits})
        assert isinstance(data, Corpus)  # our proxies read one
        settings = {
            "model": self.proxy_model(data).to_json(),
            "recipe": dataclasses.asdict(self.proxy.recipe.canonical()),
            "limits": limits,
        }
        if self.tasks:
            settings["tasks"] = self.task_keys(data)
        return digest(settings)

    def binding(self, data: TrainingData) -> str:
        """What the study folder and its ledger are bound to: the data and `training_hash`."""
        return digest([data.hash, self.training_hash(data)])


def digest(settings: Any) -> str:
    """Short hash of JSON-able settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def load_study(path: Path | str) -> Study:
    """The study file at `path`, with what the command line overrides, validated.

    Raises:
        StudyError: naming file, line, key and fix.
    """
    path = Path(path)
    overrides = current_overrides()
    document = yaml_lines.overridden(path, overrides)
    import_from_folder(path.parent, document.values)
    study = document.validate(Study)
    study._path, study._overrides = path.absolute(), overrides
    return study


def study_of(settings: Mapping[str, Any], path: Path, name: str) -> Study:
    """The study that `settings` describe as a study file at `path` would.

    Args:
        settings: keys of a study file, with plain values or its sections.
        path: where the file is, or would be: other paths are relative to its folder.
        name: what errors begin with, where those of a file name it.

    Raises:
        StudyError: naming key and fix.
    """
    import_from_folder(path.parent, settings)
    study = yaml_lines.Values(settings, name).validate(Study)
    study._path = path.absolute()
    return study
