"""What published laws of mixture-of-experts trainings say of a shape and its start.

Each law is an opinion of the runs that it was fitted to, and is asked within their range alone.
Losses are nats per token of those runs' own text and tokenizer: only differences mean something
here. The law of upcycling itself (2502.03009) is not among them: of its form and constants we have
no text that we could check.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mixopt.core.formatting import count, signed
from mixopt.models.config import ModelConfig

EXPANSIONS = (1, 2, 4, 8, 16, 32)  # experts of the joint law's runs, one of them per token
MOST_ACTIVE, MOST_TOTAL = 2_700_000_000, 5_000_000_000  # parameters of its largest runs
# Ours, because only the upper ends of size are known to us: below 10M active parameters the same
# paper's law of rates is wrong (`mixopt.models.learning_rates`); tokens as of the other law, and
# down to a billion.
LEAST_ACTIVE, LEAST_TOKENS, MOST_TOKENS = 10_000_000, 1_000_000_000, 130_000_000_000
GRANULARITIES = (1, 16)  # of the fine-grained law, as are the next lines
FINE_EXPANSION = 64
FINE_PARAMS = (129_000_000, 3_700_000_000)
FINE_TOKENS = (16_000_000_000, 130_000_000_000)


def joint_loss(active: float, tokens: float, expansion: float) -> float:
    """Loss of a training from scratch by the joint MoE law (2502.05172).

    a Ê^δ N^(α + γ ln Ê) + b Ê^ω D^(β + ζ ln Ê) + c, where Ê saturates in the number of experts.

    Args:
        active: parameters N that a token reaches, embeddings included.
        tokens: training tokens D.
        expansion: experts of which each token reaches one; 1 is a dense model.
    """
    start, most = 2.0732, 290.4521
    experts = 1 / (1 / (expansion - 1 + 1 / (1 / start - 1 / most)) + 1 / most)
    log = math.log(experts)
    size = 35.91 * experts**-0.2285 * active ** (-0.1889 + 0.0098 * log)
    data = 35.98 * experts**0.5529 * tokens ** (-0.1775 - 0.0259 * log)
    return float(size + data + 1.3637)


def fine_grained_loss(params: float, tokens: float, granularity: float) -> float:
    """Loss of a training from scratch with 64 times the weights of one expert (2402.07871).

    c + (g / G^γ + a) / N^α + b / D^β.

    Args:
        params: all parameters N.
        tokens: training tokens D.
        granularity: G, into how many finer ones each expert is cut.
    """
    size = (2.1 / granularity**0.58 + 18.1) / params**0.115
    return float(0.47 + size + 30.8 / tokens**0.147)


@dataclass(frozen=True)
class Start:
    """An upcycling that is planned.

    Attributes:
        model: its shape, with the vocabulary.
        dense_tokens: what each dense model was trained on before.
        tokens: what the upcycled one will be trained on.
    """

    model: ModelConfig
    dense_tokens: int
    tokens: int

    @property
    def expansion(self) -> float:
        """How many times the expert weights that a token reaches there are."""
        return self.model.experts / self.model.experts_per_token

    @property
    def active(self) -> int:
        """Parameters that a token reaches, embeddings included."""
        return self.model.active_params() + self._embeddings

    @property
    def dense_active(self) -> int:
        """Parameters of a dense model that it starts from, embeddings included."""
        return self.model.as_dense().active_params() + self._embeddings

    @property
    def total(self) -> int:
        """All parameters."""
        return self.model.total_params() + self._embeddings

    @property
    def _embeddings(self) -> int:
        tables = 1 if self.model.tie_embeddings else 2
        return tables * self.model.vocab_size * self.model.width


def shape_advice(start: Start) -> list[str]:
    """What the laws say of `start`, a sentence each; empty outside the range of their runs."""
    return [line for line in (_experts(start), _start(start), _granularity(start)) if line]


def tokens_from_scratch(start: Start) -> float | None:
    """Tokens after which a MoE from scratch is where its dense model is now, by the joint law.

    None if it takes more than the law's runs had.
    """
    dense = joint_loss(start.dense_active, start.dense_tokens, 1)
    low, high = 1.0, float(MOST_TOKENS)
    if joint_loss(start.active, high, start.expansion) > dense:
        return None
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        if joint_loss(start.active, middle, start.expansion) > dense:
            low = middle
        else:
            high = middle
    return high


def _experts(start: Start) -> str:
    if not _joint_speaks(start, start.tokens):
        return ""
    losses = {
        each: joint_loss(start.active, start.tokens, each)
        for each in EXPANSIONS
        if _total(start, each) <= MOST_TOTAL
    }
    best = min(losses, key=losses.__getitem__)
    own = joint_loss(start.active, start.tokens, start.expansion)
    return (
        f"Experts: at {count(start.active)} active parameters and {count(start.tokens)} tokens "
        f"from scratch, the joint MoE law (2502.05172) {_RANGE} puts {best} experts with one per "
        f"token lowest; against a dense model {signed(losses[best] - losses[1], 3)} nats, this "
        f"shape ({start.model.experts} experts, {start.model.experts_per_token} per token) "
        f"{signed(own - losses[1], 3)}."
    )


def _start(start: Start) -> str:
    if not (_joint_speaks(start, start.tokens) and _joint_speaks(start, start.dense_tokens)):
        return ""
    needed = tokens_from_scratch(start)
    reached = "more than the law's runs had" if needed is None else f"{count(needed)} tokens"
    if needed is None or start.tokens < needed:
        verdict = f"with {count(start.tokens)} it stays behind: upcycle"
    else:
        verdict = (
            f"with {count(start.tokens)} it gets further, and which start ends lower this law "
            "cannot say"
        )
    return (
        f"Start: by the joint MoE law (2502.05172) {_RANGE} this shape from scratch needs "
        f"{reached} to be where a dense model of {count(start.dense_tokens)} tokens is, from which "
        f"an upcycling that keeps the function starts; {verdict}."
    )


def _granularity(start: Start) -> str:
    inside = (
        start.expansion == FINE_EXPANSION
        and FINE_PARAMS[0] <= start.total <= FINE_PARAMS[1]
        and FINE_TOKENS[0] <= start.tokens <= FINE_TOKENS[1]
    )
    if not inside:
        return ""
    coarse, fine = GRANULARITIES
    gain = fine_grained_loss(start.total, start.tokens, fine) - fine_grained_loss(
        start.total, start.tokens, coarse
    )
    return (
        f"Granularity: the fine-grained law (2402.07871), fitted to 64-fold expansion, 129M to "
        f"3.7B parameters and 16B to 130B tokens, gives experts cut into {fine} (as many times "
        f"more per token) {signed(gain, 3)} nats against whole ones; the cost of routing is not "
        "counted."
    )


_RANGE = "(fitted up to 2.7B active and 5B parameters)"


def _joint_speaks(start: Start, tokens: int) -> bool:
    """Whether the shape and so many tokens are within the joint law's runs."""
    return (
        1 < start.expansion <= EXPANSIONS[-1]
        and LEAST_ACTIVE <= start.active <= MOST_ACTIVE
        and start.total <= MOST_TOTAL
        and LEAST_TOKENS <= tokens <= MOST_TOKENS
    )


def _total(start: Start, expansion: int) -> float:
    """All parameters with another expansion at as many active ones."""
    experts = (start.total - start.active) / (start.expansion - 1)  # that a token reaches
    return start.active + (expansion - 1) * experts
