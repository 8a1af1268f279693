"""The study file: one YAML that says what is searched, with what, and what is promoted.

`load_study` reads and validates it; errors name the line and the fix. The sections' settings are
in `sections.py`, how they have to fit one another in `section_checks.py`, what the trainings of the
study are in `trainings.py`; which settings a study's folder locks is in `locked.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, field_validator, model_validator

from mixopt.core import urls
from mixopt.core.errors import MixtureError, StudyError
from mixopt.core.guardrails import Guardrail
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import LinearConstraint, MixtureSpace
from mixopt.corpus.shards import Corpus
from mixopt.io import yaml_lines
from mixopt.search import designs
from mixopt.selection.candidates import NATURAL
from mixopt.study import section_checks as checks
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
    _corpus_or_domains = field_validator("domains")(checks.corpus_or_domains)
    _reads_the_domains = field_validator("trainer")(checks.reads_the_domains)
    _some_weight = field_validator("objective")(checks.some_weight)
    _what_is_better = field_validator("metrics")(checks.weights_count_what_is_better)
    _tasks_of_our_proxies = field_validator("tasks")(checks.tasks_of_our_proxies)
    _names_of_tasks = field_validator("tasks")(checks.names_of_tasks)
    _shape_of_our_proxies = field_validator("proxy")(checks.shape_of_our_proxies)
    _at_another_size = field_validator("select")(checks.at_another_size)
    _evaluated_on_the_way = field_validator("search")(checks.evaluated_on_the_way)

    @model_validator(mode="before")
    @classmethod
    def _promoted_only_if_asked(cls, values: Any) -> Any:
        """A trainer of the user's is not followed by a promotion of ours unasked."""
        if isinstance(values, dict) and values.get("trainer") is not None:
            return {"promote": None, **values}
        return values

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
        """The promotion, where we upcycle; None without one, or where a trainer does all of it."""
        promote = self.promote
        return promote if promote is not None and promote.upcycles else None

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

    def initial_design(self, space: MixtureSpace) -> list[Mixture]:
        """The mixtures of the design, before repeats.

        Raises:
            StudyError: the space does not hold so many.
        """
        with self.naming():
            return designs.design(space, self.search.trials, self.seed, self.search.design)


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
