"""How a model is trained: everything but its shape, its data and its seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mixopt.core.errors import StudyError

TRAINING_PER_FORWARD = 3  # a backward pass costs twice its forward pass
AT_THE_END = 0.75  # of what evaluations may cost
# How many times the tokens of other sets those have that the objective weighs: on 65k tokens the
# difference of two of the demo's mixtures has a standard error of .004 bits per byte, on 10k of .01
FOCUS = 4
HARMLESS = ("micro_batches", "checkpoint_seconds")  # change memory or durability, never results
CHOICES: Mapping[str, tuple[str, ...]] = {
    "optimizer": ("adamw", "muon"),
    "precision": ("auto", "fp32", "bf16"),
    "compile": ("auto", "always", "never"),
}


@dataclass(frozen=True)
class Recipe:
    """Settings of a training that do not depend on the mixture.

    The defaults suit a proxy of width 64 for a few hundred thousand tokens: on six domains of
    code and prose, equal parts, 300k tokens give 2.63 bits per byte, with a standard deviation of
    0.005 over three seeds. Larger models want a lower rate.

    Attributes:
        sequence_length: tokens predicted per sequence T.
        batch_sequences: sequences B per optimizer step and proxy.
        micro_batches: a step's batch is run in this many parts (memory, not results).
        learning_rate: peak rate.
        optimizer: `adamw`, or `muon`, which moves the matrices of attention and experts along the
            orthogonalised momentum (2502.16982) at the same rates, and the rest by AdamW.
        warmup: share of the steps in which the rate rises linearly from 0.
        decay: share of the steps at the end in which it falls linearly to `final_rate` (WSD).
        final_rate: last rate as a share of the peak.
        beta1: AdamW first-moment decay.
        beta2: AdamW second-moment decay.
        weight_decay: decoupled decay of matrices (not of norms and embeddings).
        gradient_clip: largest gradient norm, per proxy.
        precision: `auto` measures which of fp32 and bf16 is faster on the device, once.
        compile: whether a GPU's step is compiled into fewer kernels, which takes `auto` to be worth
            it where a training is long enough; a CPU's never is.
        evaluations: how often a run is evaluated on the way, the end included.
        evaluation_tokens: tokens per validation domain, and per task, at the end, at most.
        curve_tokens: tokens per validation domain and task at each evaluation on the way, at most,
            and once more at the end, so that a curve's points compare.
        evaluation_share: what all evaluations may cost as a share of the training's FLOPs: domains
            and tasks get fewer tokens, those of the objective four times as many at the end as
            others. null lets all have what the two settings above say.
        checkpoint_seconds: a resumable checkpoint is written about this often.
    """

    sequence_length: int = 128
    batch_sequences: int = 8
    micro_batches: int = 1
    learning_rate: float = 1e-2
    optimizer: Literal["adamw", "muon"] = "adamw"
    warmup: float = 0.05
    decay: float = 0.3
    final_rate: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    gradient_clip: float = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto", "always", "never"] = "auto"
    evaluations: int = 5
    evaluation_tokens: int = 65_536
    curve_tokens: int = 16_384
    evaluation_share: float | None = 0.06
    checkpoint_seconds: float = 60.0

    # read by pydantic when a study file holds this class; a plain dict needs no import
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    def __post_init__(self) -> None:
        for name in ("sequence_length", "batch_sequences", "micro_batches", "evaluations"):
            if getattr(self, name) < 1:
                raise StudyError(f"must be at least 1, is {getattr(self, name)}", where=name)
        if self.batch_sequences % self.micro_batches:
            raise StudyError(
                f"{self.batch_sequences} sequences do not split into {self.micro_batches} parts",
                where="micro_batches",
            )
        self._check_ranges()
        if self.warmup + self.decay > 1:
            raise StudyError("warmup and decay together must be at most 1", where="warmup")

    def _check_ranges(self) -> None:
        """Refuse values out of range, NaN among them."""
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise StudyError(f"must be one of {', '.join(choices)}, is {value!r}", where=name)
        for name in ("warmup", "decay", "final_rate"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise StudyError(f"must be between 0 and 1, is {value}", where=name)
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise StudyError(f"must be at least 0 and below 1, is {value}", where=name)
        for name in ("weight_decay", "evaluation_tokens", "curve_tokens", "checkpoint_seconds"):
            value = getattr(self, name)
            if not value >= 0:
                raise StudyError(f"must be at least 0, is {value}", where=name)
        for name in ("learning_rate", "gradient_clip"):
            value = getattr(self, name)
            if not value > 0:
                raise StudyError(f"must be above 0, is {value}", where=name)
        for name in ("learning_rate", "weight_decay"):
            if not math.isfinite(getattr(self, name)):
                raise StudyError("must be finite", where=name)
        share = self.evaluation_share
        if share is not None and not 0 < share < math.inf:
            raise StudyError(f"must be above 0 or null, is {share}", where="evaluation_share")

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step trains on."""
        return self.batch_sequences * self.sequence_length

    def steps(self, tokens: int) -> int:
        """Optimizer steps that train on at least `tokens` tokens."""
        return max(1, -(-tokens // self.tokens_per_step))

    def canonical(self) -> Recipe:
        """With the defaults of `HARMLESS`: equal for recipes that give equal results."""
        defaults = {f.name: f.default for f in dataclasses.fields(self) if f.name in HARMLESS}
        return dataclasses.replace(self, **defaults)  # type: ignore[arg-type]

    def affordable(self, tokens: int, sets: int, weighed: int = 0) -> Recipe:
        """This recipe with evaluations that keep within `evaluation_share` of a training.

        The end has most of it, and there the sets that are weighed (`final_tokens`): what a search
        goes by is worth more than the way to it. An evaluation reads a sequence of each set at
        least, whatever that costs.

        Args:
            tokens: training tokens.
            sets: validation domains and tasks that are evaluated.
            weighed: how many of them the objective weighs; 0 if unknown.
        """
        if self.evaluation_share is None or sets < 1:
            return self
        budget = self.evaluation_share * TRAINING_PER_FORWARD * tokens
        units = weighed + (sets - weighed) / FOCUS if weighed else sets
        end = min(self.evaluation_tokens, int(AT_THE_END * budget / units))
        left = (budget - units * end) / (sets * self.evaluations)
        way = min(self.curve_tokens, int(left), end)
        return dataclasses.replace(self, evaluation_tokens=end, curve_tokens=way)

    def final_tokens(self, name: str, weighed: Collection[str]) -> int:
        """Tokens at the end of the domain or task `name`, where the objective weighs `weighed`.

        All without an `evaluation_share`, or where `weighed` is empty.
        """
        if self.evaluation_share is None or not weighed or name in weighed:
            return self.evaluation_tokens
        return self.evaluation_tokens // FOCUS
