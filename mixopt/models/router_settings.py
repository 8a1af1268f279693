"""Settings of each router, and what it and its experts weigh: no torch, so that files read fast.

A router that is a class of your own names its settings by `Router.settings_class`; those that come
with mixopt are in `SETTINGS`. Counts are of the weights of one layer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mixopt.core.errors import StudyError

if TYPE_CHECKING:
    from mixopt.models.config import ModelConfig


@dataclass(frozen=True)
class RouterSettings:
    """No settings: one matrix (D, E), and k of E SwiGLU experts of width F for every token.

    A subclass adds fields with defaults, and says what differs in size.
    """

    plain_experts: ClassVar[bool] = True  # E SwiGLUs of (D, F): what upcycling can fill

    def check(self, config: ModelConfig) -> None:
        """Refuse a shape that does not go with these settings.

        Raises:
            StudyError: naming the setting.
        """

    def unit_gates(self, config: ModelConfig) -> bool:
        """Whether a token's gates always sum to 1."""
        return config.renormalize and config.experts_per_token > 1

    def router_weights(self, config: ModelConfig) -> float:
        """Weights of the router, frozen ones included."""
        return config.width * config.experts

    def reached_router_weights(self, config: ModelConfig) -> float:
        """Those of them that one token reaches."""
        return self.router_weights(config)

    def expert_weights(self, config: ModelConfig) -> int:
        """Weights of all routed experts."""
        return config.experts * config.weights_per_expert

    def reached_expert_weights(self, config: ModelConfig) -> float:
        """Those of them that one token reaches, on average where their number varies."""
        return config.experts_per_token * config.weights_per_expert


@dataclass(frozen=True)
class PlainGates(RouterSettings):
    """No settings; the gates are the scores themselves, whatever `renormalize` says."""

    def unit_gates(self, config: ModelConfig) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class LossFreeSettings(RouterSettings):
    """Balance by a bias that only the choice sees (2408.15664).

    Attributes:
        rate: how far the bias moves at each optimizer step, γ.
        score: `sigmoid` of each logit, as in the paper, or `softmax` of all.
        sequence_coefficient: weight of a balance loss within each sequence, against extremes
            (2412.19437, where it is 1e-4); 0 leaves it away.
    """

    rate: float = 1e-3
    score: str = "sigmoid"
    sequence_coefficient: float = 0.0

    def __post_init__(self) -> None:
        _require(self.rate >= 0, "rate", "at least 0", self.rate)
        _require(
            self.score in ("sigmoid", "softmax"), "score", "sigmoid or softmax", repr(self.score)
        )


@dataclass(frozen=True)
class TopPSettings(PlainGates):
    """As many experts as the token's probability mass needs (2403.07652).

    Attributes:
        mass: probability that the chosen experts must exceed together, p.
        entropy_coefficient: weight of the probabilities' entropy, which keeps the number small.
    """

    mass: float = 0.4
    entropy_coefficient: float = 1e-4

    def __post_init__(self) -> None:
        _require(0 <= self.mass <= 1, "mass", "between 0 and 1", self.mass)


@dataclass(frozen=True)
class NullSettings(RouterSettings):
    """Experts that compute nothing beside the E that do (2406.13233).

    Attributes:
        null: how many there are. Of the k choices of a token k·E / (E + null) are real experts
            while the load is balanced.
    """

    null: int = 4

    def __post_init__(self) -> None:
        _require(self.null >= 1, "null", "at least 1", self.null)

    def unit_gates(self, config: ModelConfig) -> bool:
        """Not for a token whose choices are all null."""
        return False

    def router_weights(self, config: ModelConfig) -> float:
        """A column for each null expert too."""
        return config.width * (config.experts + self.null)

    def reached_expert_weights(self, config: ModelConfig) -> float:
        """While the load is balanced."""
        real = config.experts / (config.experts + self.null)
        return real * super().reached_expert_weights(config)


@dataclass(frozen=True)
class CheapExpertsSettings(RouterSettings):
    """Zero, copy and constant experts beside the E that compute (2410.07348).

    Attributes:
        zero: experts that give 0.
        copy: experts that give the token's state back.
        constant: experts that mix the state with a vector that is learned.
        share: load of a cheap expert that counts like 1 of a computing one in the balance loss, τ;
            below 1 more tokens go the cheap way.
    """

    zero: int = 1
    copy: int = 1
    constant: int = 2
    share: float = 0.75

    def __post_init__(self) -> None:
        for name in ("zero", "copy", "constant"):
            value = getattr(self, name)
            _require(value >= 0, name, "at least 0", value)
        _require(self.cheap >= 1, "zero", "such that some expert is cheap", self.cheap)
        _require(0 < self.share <= 1, "share", "above 0 and at most 1", self.share)

    @property
    def cheap(self) -> int:
        """How many experts cost next to nothing."""
        return self.zero + self.copy + self.constant

    def unit_gates(self, config: ModelConfig) -> bool:
        """Not those of the experts that compute."""
        return False

    def router_weights(self, config: ModelConfig) -> float:
        """The matrix, the constant experts, and the residual from the layer below.

        The first layer has no residual: the mean over layers.
        """
        choices = config.experts + self.cheap
        residual = choices * choices * (config.layers - 1) / config.layers
        return config.width * (choices + 3 * self.constant) + residual

    def reached_expert_weights(self, config: ModelConfig) -> float:
        """While the load is as the balance loss wants it."""
        real = self.share * config.experts / (self.share * config.experts + self.cheap)
        return real * super().reached_expert_weights(config)


@dataclass(frozen=True)
class ReluSettings(PlainGates):
    """Every expert whose score is above 0 (2412.14711).

    Attributes:
        coefficient: weight of the gates' L1 norm at the start, λ₀.
        growth: factor by which the weight rises or falls after each optimizer step.
    """

    coefficient: float = 1e-8
    growth: float = 1.2

    def __post_init__(self) -> None:
        _require(self.coefficient > 0, "coefficient", "above 0", self.coefficient)
        _require(self.growth >= 1, "growth", "at least 1", self.growth)


@dataclass(frozen=True)
class CosineSettings(RouterSettings):
    """Cosine to expert vectors in a narrow space (2204.09179).

    Attributes:
        narrow_width: width of that space.
        temperature: what the cosine is divided by, τ₀: for the gates it is learned from there on,
            in the balance loss it stays. The paper has 0.3 where gates are softmaxes, as here.
    """

    narrow_width: int = 16
    temperature: float = 0.3

    def __post_init__(self) -> None:
        _require(self.narrow_width >= 1, "narrow_width", "at least 1", self.narrow_width)
        _require(self.temperature > 0, "temperature", "above 0", self.temperature)

    def router_weights(self, config: ModelConfig) -> float:
        """Projection, expert vectors, temperature."""
        return self.narrow_width * (config.width + config.experts) + 1


@dataclass(frozen=True)
class HashSettings(RouterSettings):
    """Experts by token id (2106.04426).

    Attributes:
        seed: which of the random tables.
    """

    seed: int = 0

    def unit_gates(self, config: ModelConfig) -> bool:
        """Always: each gate is 1 / k."""
        return True

    def router_weights(self, config: ModelConfig) -> float:
        """None."""
        return 0


@dataclass(frozen=True)
class StableSettings(PlainGates):
    """A router that is distilled into one by token id, and then frozen (2204.08396).

    Attributes:
        stage: share of the steps after which the distilled router takes over.
        embedding_width: width of its token embeddings.
        balance: weight of the balance loss, α; it is another loss than that of other routers, and
            does not take their coefficient.
    """

    stage: float = 0.1
    embedding_width: int = 50
    balance: float = 0.3

    def __post_init__(self) -> None:
        _require(self.balance >= 0, "balance", "at least 0", self.balance)
        _require(0 <= self.stage <= 1, "stage", "between 0 and 1", self.stage)
        _require(self.embedding_width >= 1, "embedding_width", "at least 1", self.embedding_width)

    def router_weights(self, config: ModelConfig) -> float:
        """Both routers and the frozen copy of the distilled one."""
        distilled = self.embedding_width * (config.vocab_size + config.experts)
        return config.width * config.experts + 2 * distilled

    def reached_router_weights(self, config: ModelConfig) -> float:
        """A token reads one row of the embeddings."""
        distilled = self.embedding_width * (1 + config.experts)
        return config.width * config.experts + distilled


@dataclass(frozen=True)
class HyperSettings(RouterSettings):
    """Router weights made by a frozen network from a trained embedding (2312.07035).

    Attributes:
        embedding_width: width of the embedding.
        hidden_width: hidden width of the frozen network.
    """

    embedding_width: int = 64
    hidden_width: int = 64

    def __post_init__(self) -> None:
        for name in ("embedding_width", "hidden_width"):
            value = getattr(self, name)
            _require(value >= 1, name, "at least 1", value)

    def router_weights(self, config: ModelConfig) -> float:
        """Embedding and frozen network."""
        made = config.width * config.experts
        return self.embedding_width + self.hidden_width * (self.embedding_width + made)

    def reached_router_weights(self, config: ModelConfig) -> float:
        """The matrix that is made: making it costs once per step, not per token."""
        return config.width * config.experts


@dataclass(frozen=True)
class RecurrentSettings(RouterSettings):
    """A state that a GRU carries from layer to layer decides (2408.06793).

    Attributes:
        state_width: width of the state.
    """

    state_width: int = 64

    def __post_init__(self) -> None:
        _require(self.state_width >= 1, "state_width", "at least 1", self.state_width)

    def router_weights(self, config: ModelConfig) -> float:
        """Projection and reading of a layer, and its part of the GRU that the layers share."""
        gru = 6 * self.state_width * (self.state_width + 1)
        own = self.state_width * (config.width + config.experts)
        return own + gru / config.layers

    def reached_router_weights(self, config: ModelConfig) -> float:
        """The shared GRU is run at every layer."""
        gru = 6 * self.state_width * (self.state_width + 1)
        return self.state_width * (config.width + config.experts) + gru


@dataclass(frozen=True)
class AutonomySettings(RouterSettings):
    """Experts choose themselves by the norm of their own first activations (2501.13074).

    Attributes:
        low_width: width of these activations; 0 takes a third of the model's.
    """

    plain_experts: ClassVar[bool] = False
    low_width: int = 0

    def __post_init__(self) -> None:
        _require(self.low_width >= 0, "low_width", "at least 0", self.low_width)

    def activations(self, config: ModelConfig) -> int:
        """Width of an expert's first activations."""
        return self.low_width or max(1, config.width // 3)

    def router_weights(self, config: ModelConfig) -> float:
        """Every expert's first matrix, which all tokens reach."""
        return config.experts * config.width * self.activations(config)

    def _after(self, config: ModelConfig) -> int:
        return config.expert_width * (self.activations(config) + 2 * config.width)

    def expert_weights(self, config: ModelConfig) -> int:
        """What is behind the first matrices."""
        return config.experts * self._after(config)

    def reached_expert_weights(self, config: ModelConfig) -> float:
        """Of the chosen ones."""
        return config.experts_per_token * self._after(config)


@dataclass(frozen=True)
class HeterogeneousSettings(RouterSettings):
    """Experts of unequal width (2408.10681).

    Attributes:
        widths: hidden width of each expert; empty spreads them evenly from a half to one and a
            half of `expert_width`, in steps of a half.
        penalty: weight of the loss that makes wide experts dearer; it stands in for the balance
            loss.
    """

    plain_experts: ClassVar[bool] = False
    widths: tuple[int, ...] = ()
    penalty: float = 0.1

    def __post_init__(self) -> None:
        _require(all(w >= 1 for w in self.widths), "widths", "all at least 1", list(self.widths))

    def check(self, config: ModelConfig) -> None:
        """One width an expert."""
        if self.widths:
            fits, said = len(self.widths) == config.experts, f"{config.experts} numbers"
            _require(fits, "widths", said, list(self.widths))
        elif config.expert_width % 2:
            raise StudyError(
                f"{config.expert_width} has no half",
                where="expert_width",
                hint="Choose an even one, or say router_settings.widths",
            )

    def expert_widths(self, config: ModelConfig) -> tuple[int, ...]:
        """The width of each expert."""
        if self.widths:
            return self.widths
        last = max(1, config.experts - 1)
        halves = [1 + round(2 * e / last) if config.experts > 1 else 2 for e in range(last + 1)]
        return tuple(config.expert_width // 2 * n for n in halves[: config.experts])

    def expert_weights(self, config: ModelConfig) -> int:
        """All widths together."""
        return 3 * config.width * sum(self.expert_widths(config))

    def reached_expert_weights(self, config: ModelConfig) -> float:
        """Of k experts of the mean width."""
        return config.experts_per_token * self.expert_weights(config) / config.experts


@dataclass(frozen=True)
class MultiHeadSettings(RouterSettings):
    """A token's state cut into sub-tokens that are routed apart (2411.16205).

    Attributes:
        heads: sub-tokens of a token.
    """

    plain_experts: ClassVar[bool] = False
    heads: int = 2

    def check(self, config: ModelConfig) -> None:
        """The width splits into the heads."""
        fits = self.heads >= 1 and config.width % self.heads == 0
        _require(fits, "heads", f"a divisor of the width {config.width}", self.heads)

    def router_weights(self, config: ModelConfig) -> float:
        """The router of sub-tokens, and the matrices before and after the heads."""
        return config.width // self.heads * config.experts + 2 * config.width * config.width

    def reached_router_weights(self, config: ModelConfig) -> float:
        """Once per sub-token."""
        return config.width * config.experts + 2 * config.width * config.width

    def expert_weights(self, config: ModelConfig) -> int:
        """Experts of sub-tokens are as many times narrower at their ends."""
        return super().expert_weights(config) // self.heads


@dataclass(frozen=True)
class SelectorSettings(RouterSettings):
    """Selectors that write an expert's number in soft bits (2106.03760).

    Attributes:
        smooth_width: distance between the scores at which a bit is surely 0 and surely 1, γ.
        entropy_coefficient: weight of the selectors' entropy, which makes the bits sure.
    """

    smooth_width: float = 1.0
    entropy_coefficient: float = 1e-2

    def __post_init__(self) -> None:
        _require(self.smooth_width > 0, "smooth_width", "above 0", self.smooth_width)

    def unit_gates(self, config: ModelConfig) -> bool:
        """Always, of one selector too."""
        return True

    def bits(self, config: ModelConfig) -> int:
        """How many bits number the experts."""
        return (config.experts - 1).bit_length()

    def router_weights(self, config: ModelConfig) -> float:
        """Of each selector, its bits and its share."""
        return config.width * config.experts_per_token * (self.bits(config) + 1)


@dataclass(frozen=True)
class ExpertChoiceSettings(PlainGates):
    """Experts choose tokens (2202.09368), which shows a token what comes after it.

    Attributes:
        ablation: must be true: losses of a model that reads ahead, and whose experts are filled
            batch by batch, compare with no other's.
    """

    ablation: bool = False

    def check(self, config: ModelConfig) -> None:
        """Refuse it as a language model."""
        if not self.ablation:
            raise StudyError(
                "expert choice leaks the future: whether a token gets an expert depends on the "
                "scores of later tokens and of the other sequences of its batch, so that its "
                "losses compare with no other router's and no text can be generated",
                where="router",
                hint="Choose another router, or set router_settings.ablation to true for an "
                "experiment that allows for it",
            )


SETTINGS: Mapping[str, type[RouterSettings]] = {
    "adamoe": NullSettings,
    "autonomy": AutonomySettings,
    "deepseek": PlainGates,
    "dselect-k": SelectorSettings,
    "expert-choice": ExpertChoiceSettings,
    "hash": HashSettings,
    "hmoe": HeterogeneousSettings,
    "hyper": HyperSettings,
    "loss-free": LossFreeSettings,
    "mh-moe": MultiHeadSettings,
    "moe++": CheapExpertsSettings,
    "remoe": ReluSettings,
    "rmoe": RecurrentSettings,
    "softmax": RouterSettings,
    "stable": StableSettings,
    "switch": PlainGates,
    "top-p": TopPSettings,
    "x-moe": CosineSettings,
}


def build_settings(kind: type[RouterSettings], values: Mapping[str, Any]) -> RouterSettings:
    """The settings that `values` of a study file give.

    Raises:
        StudyError: a key that there is not, or a value of another type or out of range.
    """
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    taken: dict[str, Any] = {}
    for key, value in values.items():
        where = f"router_settings.{key}"
        if key not in fields:
            names = ", ".join(fields) or "none"
            raise StudyError(
                "this router has no such setting", where=where, hint=f"It has: {names}"
            )
        taken[key] = _as(type(fields[key]), value, where)
    return kind(**taken)


def _as(kind: type, value: Any, where: str) -> Any:
    """`value` if it is a `kind`; whole numbers stand for decimal ones, lists for tuples.

    YAML reads 1e-3 as text.
    """
    if kind is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple and isinstance(value, list):
        value = tuple(value)
    fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if kind is tuple and fits:
        fits = all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    if kind is float and fits:
        fits = math.isfinite(value)
    if not fits:
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        said = words.get(kind, "a list of whole numbers")
        raise StudyError(f"must be {said}, is {value!r}", where=where)
    return value


def _require(holds: bool, name: str, said: str, value: object, hint: str = "") -> None:
    """Refuse the setting `name` unless `holds`."""
    if not holds:
        raise StudyError(f"must be {said}, is {value}", where=f"router_settings.{name}", hint=hint)
