"""The peak learning rate that a law of many mixture-of-experts trainings advises."""

from __future__ import annotations

import math

from mixopt.models.config import ModelConfig

# The law was fitted to models of up to 2.7B active parameters. For proxies it is followed far
# beyond them, and gives rates that are too high: 0.25 at width 64, where 0.01 trains best.
SMALLEST = 10_000_000


def advised_peak_rate(config: ModelConfig) -> float:
    """exp(8.39 − 0.81 ln N − 0.25 ln E), the rate of the joint MoE scaling laws (2502.05172).

    N is the number of active parameters without embeddings, E the number of experts. The law was
    fitted for AdamW and long trainings; see `is_extrapolated`.
    """
    return math.exp(
        8.39 - 0.81 * math.log(config.active_params()) - 0.25 * math.log(config.experts)
    )


def is_extrapolated(config: ModelConfig) -> bool:
    """Whether the model is so small that the law says little about it."""
    return config.active_params() < SMALLEST
