"""The study file's `promote`: the full run of the selected mixture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from mixopt.core.errors import StudyError
from mixopt.core.phases import Phase, Trained, check_phases
from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.models.upcycling import MERGES, ROUTER_STARTS, SEED, UPCYCLERS
from mixopt.models.upcycling.method import Method
from mixopt.study.named import Registered
from mixopt.study.own_trainer import Trainer, short_trainer
from mixopt.study.sections import Section, Shape, Tokens, Training

# Keys of a promotion by a trainer of the user's.
OWN = ("trainer", "upcycle", "resources", "params", "tokens", "name", "approve", "baseline_curve")
# Keys of a promotion that came later, with their defaults: a promotion that does not set them keeps
# the name of its folder.
UNSET: dict[str, Any] = {
    "upcycle": False,
    "train": True,
    "trains": [],
    "upcycler_settings": {},
    "merge": "average",
    "merge_settings": {},
    "router_start": "random",
    "router_start_settings": {},
}


class RunResources(Section):
    """What the full run asks of Ray."""

    processes: int = Field(default=1, ge=1)
    """Processes that train each of our models together; a trainer of your own starts its own."""
    cpus: float | None = Field(default=None, gt=0)
    """CPU cores of each process, also its threads; null takes ray.cpus_per_trial."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs of each process, all of one machine; null takes ray.gpus_per_trial."""
    recompute: bool = False
    """Computes our models' activations again for gradients: less memory, one more forward pass."""


class TrainedPart(Section):
    """A phase of the upcycled model's training."""

    what: Trained
    """Parameters that move: router, experts, or all."""
    share: float = Field(gt=0, le=1)
    """Of the training's steps; those of all phases sum to 1."""


class Promote(Section):
    """The full run of the selected mixture: upcycled by us, by a trainer of your own, or both."""

    trainer: Annotated[Trainer | None, BeforeValidator(short_trainer)] = None
    """Trains the full run (role `promote`, docs/trainers.md) in the place of our upcycling;
    `elsewhere`: `mixopt ask` hands it out, and `mixopt tell` takes its metrics."""
    upcycle: bool = False
    """Whether that trainer begins from a model that is upcycled here, from dense models that are
    trained or imported: the folder `initial_model` of its job.json."""
    resources: RunResources = RunResources()
    """What each training of the promotion asks of Ray; with others it goes on from where it is."""
    params: Tokens | None = None
    """Parameters of that trainer's model that one token uses, if they are known."""

    upcycler: Annotated[str, Registered("upcycler", UPCYCLERS)] = "branch-train-mix"
    """How the dense models become one mixture of experts (docs/upcycling.md)."""
    upcycler_settings: dict[str, Any] = Field(default={})
    """Settings of that upcycler alone."""
    merge: Annotated[str, Registered("merge", MERGES)] = "average"
    """How what is no expert is merged over the dense models, where the upcycler merges."""
    merge_settings: dict[str, Any] = Field(default={})
    """Settings of that merge alone."""
    router_start: Annotated[str, Registered("router start", ROUTER_STARTS)] = "random"
    """What the routers are before training."""
    router_start_settings: dict[str, Any] = Field(default={})
    """Settings of that start alone."""
    model: Shape = ModelConfig()
    """Shape of the promoted model; its experts become the branched domain models."""
    recipe: Training = Recipe()
    seed_model: str | None = None
    """A dense model in the place of the seed's training: a folder relative to this file, an fsspec
    URL or a name on the hub (docs/upcycling.md)."""
    expert_models: dict[str, str] = Field(default={})
    """Domain → a dense model branched from `seed_model`, in the place of that expert's training."""
    train: bool = True
    """Whether an upcycled Hugging Face checkpoint is trained; false leaves that to you."""
    trains: list[TrainedPart] = Field(default=[])
    """Which parameters of the upcycled model move when, phase after phase; empty: all of them."""
    seed_tokens: Tokens = 600_000
    """Tokens of the dense seed model, on the natural mixture."""
    expert_tokens: Tokens = 200_000
    """Tokens of each dense domain expert branched from it."""
    tokens: Tokens = 600_000
    """Tokens of the full run, on the selected mixture."""
    name: str | None = Field(default=None, pattern=r"^[^/:]+$")
    """Registered model name in MLflow, without / and :; null takes the study's name."""
    approve: Literal["automatic", "manual"] = "automatic"
    """Who makes a promoted model `champion`: mixopt, by comparing it, or you (`mixopt approve`)."""
    baseline_curve: str | None = None
    """Evaluations of the baseline's own full run, CSV or curve.jsonl, relative to this file: the
    full run is compared with them while it trains (docs/full-run.md)."""

    @field_validator("expert_models")
    @classmethod
    def _branched_from_a_seed(cls, models: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if models and info.data.get("seed_model") is None:
            raise ValueError(
                "they are branched from a seed model, and none is named; set promote.seed_model"
            )
        if SEED in models:
            raise ValueError(f"no expert is called {SEED!r}: that is `seed_model`")
        return models

    @model_validator(mode="after")
    def _keys_of_one_trainer(self) -> Promote:
        """Keys of our upcycling are refused beside a trainer, and its keys without one."""
        given = self.model_fields_set
        if self.trainer is None:
            for key in ("params", "upcycle"):
                if key in given and getattr(self, key) is not False:
                    raise ValueError(f"{key}: is for promote.trainer, and none is named")
            return self._shared_by_processes()
        if "tokens" not in given:
            raise ValueError("tokens: say how many tokens the full run trains on")
        if self.elsewhere and self.baseline_curve is not None:
            raise ValueError("baseline_curve: nothing watches a full run that is trained elsewhere")
        if self.upcycle:
            return self._upcycled_for_a_trainer()
        if ours := [key for key in type(self).model_fields if key in given and key not in OWN]:
            raise ValueError(
                f"{ours[0]}: your trainer has its own; give it trainer.settings, or set "
                "promote.upcycle: true, so that it begins from a model that is upcycled here"
            )
        for key in ("processes", "recompute"):
            if key in self.resources.model_fields_set:
                raise ValueError(f"resources.{key}: is for our own models; your trainer decides it")
        return self

    @field_validator("trains")
    @classmethod
    def _whole_training(cls, trains: list[TrainedPart]) -> list[TrainedPart]:
        try:
            check_phases(_phases(trains))
        except StudyError as error:
            raise ValueError(error.what) from error
        return trains

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Which parameters of the upcycled model move when."""
        return _phases(self.trains)

    def _upcycled_for_a_trainer(self) -> Promote:
        """Refuse what is said of a training that is the trainer's, and a size that is known."""
        given = self.model_fields_set
        for key in ("train", "trains"):
            if key in given:
                raise ValueError(
                    f"{key}: your trainer trains the upcycled model (promote.upcycle); leave it "
                    "out, or say it in trainer.settings"
                )
        if "params" in given:
            raise ValueError("params: the size of the upcycled model is known; leave it out")
        return self._shared_by_processes()

    def _shared_by_processes(self) -> Promote:
        """Refuse more processes than a batch can be shared by, or several on one GPU."""
        asked, recipe = self.resources, self.recipe
        part = recipe.batch_sequences // recipe.micro_batches
        if asked.processes > part:
            raise ValueError(
                f"resources.processes: {asked.processes} processes cannot share {part} sequences "
                f"(recipe.batch_sequences {recipe.batch_sequences} in recipe.micro_batches "
                f"{recipe.micro_batches}); each needs one at least"
            )
        if asked.processes > 1 and asked.gpus not in (None, 0, 1):
            raise ValueError(
                f"resources.gpus: {asked.gpus:g}; of several processes each takes one whole GPU"
            )
        return self

    @property
    def elsewhere(self) -> bool:
        """Whether the full run is asked for by `mixopt ask`, and told."""
        return self.trainer is not None and self.trainer.elsewhere

    @property
    def upcycles(self) -> bool:
        """Whether dense models become a mixture of experts here."""
        return self.trainer is None or self.upcycle

    @property
    def trains_upcycled(self) -> bool:
        """Whether an upcycled checkpoint is trained by us."""
        return self.trainer is None and self.train

    @property
    def imports(self) -> dict[str, str]:
        """`seed` and domains → the models named in the place of their trainings."""
        seed = {} if self.seed_model is None else {SEED: self.seed_model}
        return seed | self.expert_models

    @property
    def method(self) -> Method:
        """The upcycling that is asked for."""
        return Method(
            self.upcycler,
            self.upcycler_settings,
            self.merge,
            self.merge_settings,
            self.router_start,
            self.router_start_settings,
        )

    def canonical(self) -> dict[str, Any]:
        """What names a promotion's folder: its settings, without those of `UNSET` at defaults.

        Nor with `approve` and `baseline_curve`, which alter no training, and the names of existing
        models: their content counts. A trainer of the user's has an identity of its own.
        """
        left_out = {
            *("approve", "baseline_curve", "resources"),
            *("seed_model", "expert_models", "trainer", "params"),
        }
        values = self.model_copy(update={"recipe": self.recipe.canonical()})
        named = values.model_dump(mode="json", exclude=left_out) | {"model": self.model.to_json()}
        return {
            key: value for key, value in named.items() if key not in UNSET or value != UNSET[key]
        }

    @property
    def tokens_each(self) -> int:
        """Training tokens of one training, the mean over the stages."""
        if not self.upcycles:
            return self.tokens
        experts = self.model.experts
        together = self.seed_tokens + experts * self.expert_tokens + self.tokens
        return together // (experts + 2)


def _phases(trains: Sequence[TrainedPart]) -> tuple[Phase, ...]:
    return tuple(Phase(each.what, each.share) for each in trains)
