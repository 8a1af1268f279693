"""The study file: one YAML that says what is searched, with what, and what is promoted.

`load_study` reads and validates it; errors name the line and the fix. `freeze` binds a study's
folder to the settings that alter its trainings, so that all its trials compare.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
)

from mixopt import surrogates
from mixopt.core import urls
from mixopt.core.errors import MixtureError, StudyError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.recipe import HARMLESS, Recipe
from mixopt.core.registry import is_own
from mixopt.core.space import LinearConstraint, MixtureSpace
from mixopt.core.trials import Fidelity
from mixopt.corpus.questions import Questions
from mixopt.corpus.shards import Corpus
from mixopt.io import files, yaml_lines
from mixopt.io.trial_files import trial_folder
from mixopt.models.config import ModelConfig
from mixopt.models.upcycling import UPCYCLERS
from mixopt.search import designs, proposers
from mixopt.search.pruning import FEWEST
from mixopt.study.named import Registered

if TYPE_CHECKING:
    from mixopt.corpus.tasks import Task

FROZEN = "study.json"  # in a study folder: the settings that its trainings depend on
METRICS = "metrics"  # there: those that the objective weighs, where trainings depend on it
SUFFIXES = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}


def parse_tokens(value: Any) -> Any:
    """A token count: a number, or text such as `600k`, `1.5M`, `20B`, `6_000`."""
    if isinstance(value, str):
        found = re.fullmatch(
            r"([0-9][0-9_]*\.?[0-9]*(?:e[0-9]+)?)\s*([kmbgt]?)", value.strip().lower()
        )
        if not found:
            raise ValueError(f"{value!r} is not a token count; write 600000, 600k, 1.5M or 20B")
        count = float(found[1].replace("_", "")) * SUFFIXES.get(found[2], 1)
        return round(count) if math.isfinite(count) else count  # pydantic refuses what is not
    return value


def _short_counts(recipe: Any) -> Any:
    """A recipe's token counts may be written short too."""
    if not isinstance(recipe, dict):
        return recipe
    return {k: parse_tokens(v) if k.endswith("_tokens") else v for k, v in recipe.items()}


Training = Annotated[Recipe, BeforeValidator(_short_counts)]
Tokens = Annotated[int, BeforeValidator(parse_tokens), Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the study file: unknown keys are errors, numbers finite, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def _without_vocabulary(model: ModelConfig) -> ModelConfig:
    """A shape as a study file gives it: the vocabulary is the corpus' own."""
    if model.vocab_size:
        raise StudyError(
            "the vocabulary is that of the corpus", where="vocab_size", hint="Leave it out"
        )
    return model


Shape = Annotated[ModelConfig, AfterValidator(_without_vocabulary)]


class Linear(Section):
    """A linear constraint: the weighted sum of mixture weights is at most `at_most`."""

    weights: dict[str, float]
    """Domain → factor; 0 for those left out."""
    at_most: float
    """What the weighted sum may not exceed."""


class Space(Section):
    """Where the mixture may move."""

    bounds: dict[str, tuple[Share, Share]] = {}
    """Least and largest weight of a domain; [0, 1] where nothing is said."""
    max_epochs: float | None = Field(default=4.0, gt=0)
    """How often the promoted run may see a domain; null: no limit (4 is safe, 2305.16264)."""
    budget: Tokens | None = None
    """Tokens of the run that the mixture is for; null takes those of `promote`."""
    linear: list[Linear] = []
    """Further constraints, such as: web and code together at most .7."""
    kl_penalty: float = Field(default=0.0, ge=0)
    """Bits per byte that a nat of KL(mixture || natural) costs a proposal and the optimum."""


class Proxy(Section):
    """The small models that are trained to learn about mixtures."""

    model: Shape = ModelConfig()
    recipe: Training = Recipe()
    tokens: Tokens = 600_000
    """Training tokens of one proxy."""
    simulate_repetition: bool = True
    """Cut each domain so that a proxy repeats it as often as the promoted run would."""

    @property
    def tokens_each(self) -> int:
        """Training tokens of one training."""
        return self.tokens


class Pruner(Section):
    """Stops trials that will hardly beat the best one so far, by their learning curves.

    It goes by what was known before a trial's round. The first `startup_trials` of the first swarm,
    the natural mixture, its repeats and selection's runs are never pruned. What a pruned trial cost
    is counted, and proposers do not ask for its mixture again. The surrogates `gp` and
    `effective-data` learn from what it would have come to, the less the less sure that is; `auto`
    chooses between these two, and any other leaves it out.
    """

    chance: float = Field(default=0.05, gt=0, lt=0.5)
    """Stop a trial whose chance to end below the best one so far is less than this."""
    startup_trials: int = Field(default=8, ge=FEWEST)
    """Trials of the first swarm that are trained to their end, before its others begin."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of a training before which it is not stopped."""


class Search(Section):
    """How the swarm is chosen."""

    design: Annotated[str, Registered("design", designs.DESIGNS, own=False)] = "dirichlet"
    """First swarm: `dirichlet` is around the natural mixture (2407.01492), `sobol` even over the
    space, `d-optimal` the most informative, `vertices` the extremes."""
    trials: int = Field(default=16, ge=3)
    """Trials of the first swarm, the natural and the uniform mixture among them."""
    rounds: int = Field(default=2, ge=0)
    """Rounds of proposals after it. Raised later, the study goes on."""
    batch: int = Field(default=4, ge=1)
    """Trials per round."""
    proposer: Annotated[str, Registered("proposer", proposers.KNOWN)] = "bayes"
    """What chooses the mixtures of a round."""
    surrogate: Annotated[str, Registered("surrogate", surrogates.KNOWN)] = "auto"
    """What models the metrics; `auto` takes the best in cross-validation."""
    repeats: int = Field(default=2, ge=0)
    """Further seeds of the natural mixture, for noise; with 0, intervals are for one seed only."""
    pruner: Pruner | None = None
    """Stop trials that will hardly beat the best one so far; null trains all to their end."""


class Select(Section):
    """How the finalists are compared, and what the gate asks for."""

    rule: Literal["repeat", "successive-rejects"] = "repeat"
    """Every candidate with every seed, or Successive Rejects (1605.09004) over fresh seeds."""
    seeds: int = Field(default=3, ge=2)
    """Fresh seeds per candidate (successive rejects: on average). More of them is a new look."""
    confidence: float = Field(default=0.9, gt=0.5, lt=1)
    """1 - confidence bounds the rate of false promotions over candidates and looks."""
    looks: int = Field(default=1, ge=1, le=5)
    """Verdicts that may promote; each has an equal share of 1 - confidence. Fixed by the first."""


class Promote(Section):
    """The full upcycling run of the selected mixture."""

    upcycler: Annotated[str, Registered("upcycler", UPCYCLERS)] = "branch-train-mix"
    """How the dense models become one mixture of experts."""
    model: Shape = ModelConfig()
    """Shape of the promoted model; its experts become the branched domain models."""
    recipe: Training = Recipe()
    seed_tokens: Tokens = 600_000
    """Tokens of the dense seed model, on the natural mixture."""
    expert_tokens: Tokens = 200_000
    """Tokens of each dense domain expert branched from it."""
    tokens: Tokens = 600_000
    """Tokens of the upcycled model, on the selected mixture."""
    name: str | None = Field(default=None, pattern=r"^[^/:]+$")
    """Registered model name in MLflow, without / and :; null takes the study's name."""

    @property
    def tokens_each(self) -> int:
        """Training tokens of one training, the mean over the stages."""
        experts = self.model.experts
        together = self.seed_tokens + experts * self.expert_tokens + self.tokens
        return together // (experts + 2)


def without_spaces(url: str | None) -> str | None:
    """`url`, if it holds no white space: a password could not be told from text, and be shown.

    Raises:
        ValueError: it does.
    """
    if url is not None and re.search(r"\s", url):
        raise ValueError("a URL holds no spaces; write %20 for each")
    return url


class Mlflow(Section):
    """Where runs are shown. A view: it may be down, moved or rebuilt (`mixopt sync`)."""

    uri: str | None = None
    """Tracking server or database; null is MLFLOW_TRACKING_URI, else SQLite in the study folder."""
    experiment: str = "mixopt"
    """MLflow experiment that holds the runs."""
    enabled: bool = True
    """false shows nothing in MLflow."""

    _uri_without_spaces = field_validator("uri")(without_spaces)


class Ray(Section):
    """Where trials run."""

    address: str | None = None
    """`local` starts Ray here; null lets Ray find its cluster (RAY_ADDRESS), or start one."""
    cpus_per_trial: float = Field(default=1, gt=0)
    """CPU cores that one training asks of Ray; also its threads."""
    gpus_per_trial: float = Field(default=0, ge=0)
    """GPUs that one training asks of Ray; a fraction lets several share one."""
    cohort: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Trials trained as one, as packed when added: at most so many; `auto` measures the fastest."""
    attempts: int = Field(default=4, ge=1)
    """Attempts before a trial that lost its worker stops the study, or its memory, fails."""


def short_task(value: Any) -> Any:
    """A task may be written as its path alone."""
    return {"path": value} if isinstance(value, str) else value


class TaskFile(Section):
    """A file of questions, scored in bits per byte of their right answers (docs/tasks.md)."""

    path: str
    """JSONL file, relative to the study file; without a limit it may be said in place of all."""
    limit: int | None = Field(default=None, ge=1)
    """Questions taken, evenly spread over the file; null takes all."""


class Study(Section):
    """A whole study file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the folder and the MLflow runs."""
    corpus: str
    """Folder made by `mixopt corpus build`, relative to this file."""
    folder: str | None = None
    """Where everything durable lives; null is a folder of the study's name beside this file."""
    ledger: str | None = None
    """Storage URL, such as postgresql://… (needs mixopt[postgres]); null: SQLite in the folder."""
    seed: int = Field(default=0, ge=0)
    """Seeds the design, the proposals and the trainings."""
    objective: dict[str, float] = Field(min_length=1)
    """Validation domain (or metric: bpb/law, task/exam) → weight; lower bits per byte is better."""
    tasks: dict[str, Annotated[TaskFile, BeforeValidator(short_task)]] = {}
    """Questions that every trial is evaluated on: name → JSONL file (metric task/name)."""
    space: Space = Space()
    proxy: Proxy = Proxy()
    search: Search = Search()
    select: Select = Select()
    promote: Promote | None = Promote()
    mlflow: Mlflow = Mlflow()
    ray: Ray = Ray()

    _path: Path = PrivateAttr(default=Path("study.yaml"))
    _ledger_without_spaces = field_validator("ledger")(without_spaces)

    @field_validator("objective")
    @classmethod
    def _some_weight(cls, weights: dict[str, float]) -> dict[str, float]:
        if not any(weights.values()):
            raise ValueError("every weight is 0, so nothing would be optimized")
        return weights

    @field_validator("search")
    @classmethod
    def _evaluated_on_the_way(cls, search: Search, said: ValidationInfo) -> Search:
        proxy = said.data.get("proxy")  # absent where it is not valid itself
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
    def home(self) -> Path:
        """The study folder, absolute."""
        return (self._path.parent / (self.folder or self.name)).absolute()

    @property
    def begun(self) -> bool:
        """Whether the study folder holds settings or trials of it."""
        return (self.home / FROZEN).exists() or trial_folder(self.home, 0).parent.exists()

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
        """The corpus folder, absolute."""
        return (self._path.parent / self.corpus).absolute()

    @property
    def ledger_url(self) -> str:
        """Optuna storage URL."""
        return self.ledger or urls.sqlite(self.home / "ledger.db")

    @property
    def budget(self) -> int:
        """Tokens of the run that the mixture is for."""
        if self.space.budget is not None:
            return self.space.budget
        return self.promote.tokens if self.promote is not None else self.proxy.tokens

    def open_corpus(self) -> Corpus:
        """The corpus of this study, opened for reading, with the objective checked against it.

        Raises:
            CorpusError: it is absent or broken.
            StudyError: the objective or the space names a domain that it lacks.
        """
        corpus = Corpus.open(self.corpus_path)
        known = corpus.validation_domains
        scores = [f"{kind}/{name}" for name in self.tasks for kind in ("task", "accuracy")]
        for name in self.objective:
            if name.removeprefix("bpb/") not in known and name not in scores:
                raise StudyError(
                    f"there is no validation domain and no task's metric {name!r}",
                    where=f"{self.path}: objective",
                    hint=f"Choose from {', '.join([*known, *scores])}",
                )
        named = [*self.space.bounds, *(d for c in self.space.linear for d in c.weights)]
        for name in named:
            if name not in corpus.domains:
                raise StudyError(
                    f"the corpus has no training domain {name!r}",
                    where=f"{self.path}: space",
                    hint=f"Choose from {', '.join(corpus.domains)}",
                )
        return corpus

    def weighed(self, corpus: Corpus) -> tuple[str, ...]:
        """Validation domains and tasks that the objective weighs."""
        metrics = self.mixture_objective().metrics
        counted = {name.split("/", 1)[1] for name in metrics}
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
            if self.promote is not None and is_own(self.promote.upcycler):
                from mixopt.models.upcycling.base import upcycler_class  # imports torch

                upcycler_class(self.promote.upcycler)
            for model in self._models():
                if is_own(model.router) and not model.dense:
                    model.settings.check(model)

    def _models(self) -> list[ModelConfig]:
        return [self.proxy.model, *([self.promote.model] if self.promote else [])]

    def prepare_tasks(self, corpus: Corpus, folder: Path) -> dict[str, Path]:
        """Task → file of its questions as tokens in `folder`, made where it is not there.

        Raises:
            CorpusError: a task's file cannot be read, or a line of it is no question.
            StudyError: the objective weighs the accuracy of a task without choices.
        """
        recipes = [self.proxy.recipe, *([self.promote.recipe] if self.promote else [])]
        longest = min(recipe.sequence_length for recipe in recipes)
        found = {t.name: t.prepare(corpus, folder, longest) for t in self._all_tasks()}
        for name, path in found.items():
            if f"accuracy/{name}" in self.objective and Questions.read(path).choices.max() < 2:
                raise StudyError(
                    f"task {name!r} has no choices, so no accuracy",
                    where=f"{self.path}: objective",
                    hint=f"Weigh task/{name}",
                )
        return found

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
        """The objective over metrics.

        Raises:
            StudyError: the weights are no objective.
        """
        with self.naming():
            return Objective(self.objective)

    def mixture_space(self, corpus: Corpus) -> MixtureSpace:
        """The space that the mixture may move in, given what the corpus holds.

        Raises:
            StudyError: no mixture satisfies the constraints.
        """
        with self.naming("space"):
            return self._mixture_space(corpus)

    def _mixture_space(self, corpus: Corpus) -> MixtureSpace:
        bounds = self.space.bounds
        return MixtureSpace(
            domains=corpus.domains,
            natural=corpus.natural,
            lower={name: low for name, (low, _) in bounds.items()},
            upper={name: high for name, (_, high) in bounds.items()},
            available_tokens=corpus.tokens,
            max_epochs=self.space.max_epochs,
            budget_tokens=self.budget,
            linear=tuple(LinearConstraint(c.weights, c.at_most) for c in self.space.linear),
            kl_penalty=self.space.kl_penalty,
        )

    def proxy_model(self, corpus: Corpus) -> ModelConfig:
        """The proxies' shape with the vocabulary of the corpus."""
        return dataclasses.replace(self.proxy.model, vocab_size=corpus.vocab_size)

    def proxy_fidelity(self, corpus: Corpus) -> Fidelity:
        """Size and tokens of this study's proxies."""
        shape = self.proxy_model(corpus)
        return Fidelity("proxy", shape.active_params(), self.proxy.tokens)

    def token_limits(self, corpus: Corpus) -> dict[str, int] | None:
        """Tokens of each domain that a proxy may see, so that it repeats as the promoted run would.

        None where the whole domain may be seen: the proxies are as long as the promoted run.
        """
        share = self.proxy.tokens / self.budget
        if not self.proxy.simulate_repetition or share >= 1:
            return None
        least = self.proxy.recipe.sequence_length
        return {name: max(least, int(n * share)) for name, n in corpus.tokens.items()}

    def first_swarm(self, space: MixtureSpace) -> list[Mixture]:
        """The mixtures of the design, before repeats.

        Raises:
            StudyError: the space does not hold so many.
        """
        with self.naming():
            return designs.design(space, self.search.trials, self.seed, self.search.design)

    def training_hash(self, corpus: Corpus) -> str:
        """Identity of all that a result depends on but mixture, fidelity and seed."""
        recipe = dataclasses.replace(self.proxy.recipe.canonical(), **self._hashed_at_first())
        settings = {
            "model": dataclasses.asdict(self.proxy_model(corpus)),
            "recipe": dataclasses.asdict(recipe),
            "limits": self.token_limits(corpus),
        }
        if self.tasks:
            settings["tasks"] = self.task_keys(corpus)
        return digest(settings)

    def _hashed_at_first(self) -> dict[str, Any]:
        """Harmless settings of the recipe in which a folder's hash was made, once a part of it.

        The settings of folders begun since do not name them.
        """
        frozen = _read_frozen(self.home) or {}
        known = {name: frozen.get(f"proxy.recipe.{name}") for name in HARMLESS}
        return {name: value for name, value in known.items() if value is not None}

    def binding(self, corpus: Corpus) -> str:
        """What the study folder and its ledger are bound to: the corpus and `training_hash`."""
        return digest([corpus.hash, self.training_hash(corpus)])


def digest(settings: Any) -> str:
    """Short hash of JSON-able settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def load_study(path: Path | str) -> Study:
    """The study file at `path`, validated.

    Raises:
        StudyError: naming file, line, key and fix.
    """
    path = Path(path)
    study = yaml_lines.load(path, Study)
    study._path = path.absolute()
    return study


def _flat(values: Any, at: str = "") -> dict[str, Any]:
    if isinstance(values, dict) and values:
        return {k: v for key, sub in values.items() for k, v in _flat(sub, f"{at}.{key}").items()}
    return {at.removeprefix("."): values}


# What may change between two runs of one study, for no training depends on it: where it runs and is
# shown, how the next round is proposed, how finalists are judged, and what is promoted afterwards
# (a promotion's folder has its settings' hash). Of the objective the weights (see `freeze`).
FREE = (
    *("mlflow", "ray", "promote", "folder", "corpus", "ledger", "objective", "select"),
    *("search.rounds", "search.batch", "search.proposer", "search.surrogate", "space.budget"),
    *(f"proxy.recipe.{name}" for name in HARMLESS),
)


# Settings that folders begun before there were any do not name, with what they meant then.
YOUNG = {
    "proxy.recipe.evaluation_share": None,
    "search.pruner": None,
    "space.kl_penalty": 0.0,
}


def may_change(key: str) -> bool:
    """Whether the setting `key`, such as `search.batch`, may change in a study that has begun."""
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def require_begun(study: Study, first: str = "") -> None:
    """Refuse what needs the folder of a study that has begun, without making one.

    Args:
        study: which.
        first: the command that comes first; `mixopt run` if empty.

    Raises:
        StudyError: it has not begun.
    """
    if not study.begun:
        raise StudyError(
            f"study {study.name!r} has not begun: {study.home} is no folder of a study",
            where=str(study.path),
            hint=f"Run `{first or shlex.join(['mixopt', 'run', str(study.path)])}` first",
        )


def freeze(study: Study, corpus: Corpus) -> None:
    """Bind the study's folder to the settings that alter its trainings, or check that it is bound.

    Raises:
        StudyError: a setting that alters trainings differs; the difference is shown.
        FileError: the settings that the folder keeps cannot be read.
    """
    settings = _frozen_settings(study, corpus)
    begun = _read_frozen(study.home)
    if begun is None:
        study.home.mkdir(parents=True, exist_ok=True)
        files.write_json(study.home / FROZEN, settings)
        return
    before = YOUNG | begun
    _refuse_other_metrics(study, settings, before)
    bound = {k for k in settings.keys() | before.keys() if not may_change(k) and k != METRICS}
    changed = [k for k in bound if settings.get(k) != before.get(k)]
    if changed:
        lines = "".join(
            f"\n  {k}: was {before.get(k)!r}, is {settings.get(k)!r}" for k in sorted(changed)
        )
        raise StudyError(
            f"settings that alter trainings differ from those this study was begun with:{lines}",
            where=str(study.path),
            hint=f"Put them back, or give the study another name ({study.home} keeps its trials)",
        )


def _frozen_settings(study: Study, corpus: Corpus) -> dict[str, Any]:
    """What a study folder keeps: flat settings, and what they stand for."""
    values = _flat(study.model_dump(mode="json"))
    settings = {k: v for k, v in values.items() if not may_change(k)}
    settings |= {"budget": study.budget, "corpus hash": corpus.hash}
    settings |= {f"tasks.{name} hash": key for name, key in study.task_keys(corpus).items()}
    if not study.tasks:
        del settings["tasks"]  # folders begun before there were any do not name them
    if study.proxy.recipe.evaluation_share is not None:
        settings[METRICS] = sorted(study.mixture_objective().metrics)
    return settings


def _refuse_other_metrics(study: Study, settings: dict[str, Any], before: dict[str, Any]) -> None:
    """Refuse an objective of other metrics where trainings depend on which there are.

    Folders begun earlier keep the objective's weights in place of its metrics.

    Raises:
        StudyError: it weighs others than at first.
    """
    if METRICS not in settings:
        return
    weights = {k.partition(".")[2]: v for k, v in before.items() if k.startswith("objective.")}
    first = before.get(METRICS) or (sorted(Objective(weights).metrics) if weights else None)
    if first is not None and settings[METRICS] != first:
        raise StudyError(
            f"the objective weighs {', '.join(settings[METRICS])}, at first it weighed "
            f"{', '.join(first)}: with proxy.recipe.evaluation_share, how much text of each domain "
            "is evaluated depends on which are weighed, so that trials would not compare",
            where=f"{study.path}: objective",
            hint="Change weights other than 0 only, or give the study another name; a study begun "
            "with `evaluation_share: null` may weigh other metrics later",
        )


def _read_frozen(home: Path) -> dict[str, Any] | None:
    """The settings that the study folder `home` keeps; None if it was not begun.

    Raises:
        FileError: they cannot be read.
    """
    if not (home / FROZEN).exists():
        return None
    return files.read_json(
        home / FROZEN,
        files.an_object,
        hint="Restore it, or delete it: the next run locks the study file's settings as they are",
    )
