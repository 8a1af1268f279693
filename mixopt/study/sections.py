"""The sections of a study file: what each setting means, its default and its range."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
)

from mixopt import surrogates
from mixopt.core.counts import parse_tokens, with_token_counts
from mixopt.core.errors import StudyError
from mixopt.core.intervals import FEWEST_RANKED
from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.search import designs, proposers
from mixopt.search.pruning import FEWEST
from mixopt.study.given_mixtures import mixture_or_file
from mixopt.study.named import Registered


def _short_counts(recipe: Any) -> Any:
    """A recipe's token counts may be written short too."""
    return with_token_counts(recipe) if isinstance(recipe, dict) else recipe


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
    for name, unset in (("vocab_size", 0), ("end_of_text", None)):
        if getattr(model, name) != unset:
            message = "the vocabulary is that of the corpus"
            raise StudyError(message, where=name, hint="Leave it out")
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
    """Least and largest weight of a domain; [0, 1] for those left out."""
    max_epochs: float | None = Field(default=4.0, gt=0)
    """How often the promoted run may see a domain; null: no limit (4 is safe, 2305.16264)."""
    budget: Tokens | None = None
    """Tokens of the run that the mixture is for; null takes those of `promote`."""
    linear: list[Linear] = []
    """Further constraints, such as: web and code together at most .7."""
    kl_penalty: float = Field(default=0.0, ge=0)
    """Bits per byte that a nat of KL(mixture || baseline) costs a proposal and the optimum."""


class Proxy(Section):
    """The small models that are trained to learn about mixtures."""

    model: Shape = ModelConfig()
    recipe: Training = Recipe()
    tokens: Tokens = 600_000
    """Training tokens of one proxy."""
    simulate_repetition: bool = True
    """Cut each domain so that a proxy repeats it as often as the promoted run would."""
    params: Tokens | None = None
    """Of a `trainer` of your own: parameters that one token uses, if they are known."""

    @property
    def tokens_each(self) -> int:
        """Training tokens of one training."""
        return self.tokens


class Pruner(Section):
    """Stops trials that will hardly beat the best one so far, by their learning curves.

    Limits follow from the trials before a trial's round. The first `startup_trials` of the design,
    the baseline, its repeats and selection's runs are never pruned. What a pruned trial cost
    is counted, and proposers do not ask for its mixture again. The surrogates `gp` and
    `effective-data` learn from what it would have come to, the less the less sure that is; `auto`
    chooses between these two, and any other leaves it out.
    """

    chance: float = Field(default=0.05, gt=0, lt=0.5)
    """Stop a trial whose chance to end below the best one so far is less than this."""
    startup_trials: int = Field(default=8, ge=FEWEST)
    """Trials of the initial design that are trained to their end before the others begin."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of a training before which it is not stopped."""


class Search(Section):
    """How the swarm is chosen."""

    design: Annotated[str, Registered("design", designs.DESIGNS, own=False)] = "dirichlet"
    """Initial design: `dirichlet` is around the baseline (2407.01492), `sobol` even over the space,
    `d-optimal` the most informative, `vertices` the extremes."""
    trials: int = Field(default=16, ge=3)
    """Trials of the initial design, the baseline and the uniform mixture among them."""
    rounds: int = Field(default=2, ge=0)
    """Rounds of proposals after it. Raised later, the study goes on."""
    batch: int = Field(default=4, ge=1)
    """Trials per round."""
    proposer: Annotated[str, Registered("proposer", proposers.KNOWN)] = "bayes"
    """What chooses the mixtures of a round."""
    surrogate: Annotated[str, Registered("surrogate", surrogates.KNOWN)] = "auto"
    """What models the metrics; `auto` takes the best in cross-validation."""
    repeats: int = Field(default=2, ge=0)
    """Further seeds of the baseline, for noise; with 0, intervals are for one seed only."""
    enqueue: list[Annotated[str | dict[str, float | str], BeforeValidator(mixture_or_file)]] = []
    """Mixtures to try in any case: weights {web: 0.6, code: 0.4}, CSV and JSON files of them, or
    the words natural and uniform."""
    holdout: int = Field(default=0, ge=0, le=500)
    """Trials kept aside: predicted once the search has ended, then run and scored; 4 or more."""
    pruner: Pruner | None = None
    """Stop trials that will hardly beat the best one so far; null trains all to their end."""

    @field_validator("holdout")
    @classmethod
    def _enough_to_rank(cls, holdout: int) -> int:
        if 0 < holdout < FEWEST_RANKED:
            raise ValueError(
                f"{holdout} held-out trials show no rank correlation; take {FEWEST_RANKED} or "
                "more, better 8, or 0 for none"
            )
        return holdout


class LargerSize(Section):
    """A larger size, at which the order of mixtures is checked before a promotion is paid for."""

    model: Shape | None = None
    """Shape there; null is that of `proxy.model`."""
    tokens: Tokens | None = None
    """Training tokens there; null is `proxy.tokens`."""
    params: Tokens | None = None
    """Of a `trainer` of your own: parameters that one token uses there."""
    seeds: int = Field(default=2, ge=1)
    """Fresh seeds per mixture."""
    candidates: int = Field(default=2, ge=1, le=3)
    """How many of the best candidates run there, beside the baseline."""


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
    at: LargerSize | None = None
    """Baseline and best candidates once more at this size before a promotion: {tokens: 5M}."""

    def runs(self, candidates: int) -> tuple[int, int | None]:
        """Fresh seeds for so many candidates, and runs in all where the rule has a budget.

        Successive Rejects spends on the last candidates what it saves on the first: up to twice the
        seeds.
        """
        if self.rule == "repeat":
            return self.seeds, None
        return 2 * self.seeds, candidates * self.seeds


def without_spaces(url: str | None) -> str | None:
    """`url`, if it holds no white space, behind which a password could not be recognized.

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


class Notify(Section):
    """Who is told when `mixopt run` (or `search`, `select`, `promote`) has ended or failed.

    Study, stage, message and verdict, as a JSON object. A notification that fails harms nothing.
    """

    url: str | None = None
    """Webhook that gets it by POST; `$NAME` in it is taken from the environment, for secrets."""
    command: str | None = None
    """Command that gets it on stdin, started beside the study file without a shell."""

    _url_without_spaces = field_validator("url")(without_spaces)

    @field_validator("command")
    @classmethod
    def _some_words(cls, command: str | None) -> str | None:
        """Refuse quotes that are not closed now, not when a study has ended."""
        if command is not None and not shlex.split(command):
            raise ValueError("names no program")
        return command


def short_notify(value: Any) -> Any:
    """It may be written as the webhook's URL alone."""
    return {"url": value} if isinstance(value, str) else value


def short_task(value: Any) -> Any:
    """A task may be written as its path alone."""
    return {"path": value} if isinstance(value, str) else value


class TaskFile(Section):
    """A file of questions, scored in bits per byte of their right answers (docs/tasks.md)."""

    path: str
    """JSONL file, relative to the study file; may stand alone in place of this section."""
    limit: int | None = Field(default=None, ge=1)
    """Questions taken, evenly spread over the file; null takes all."""
