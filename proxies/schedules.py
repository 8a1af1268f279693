"""The learning rate over a training: warm-up, stable, decay."""

from __future__ import annotations

from mixopt.core.recipe import Recipe


def rate_share(step: int, steps: int, recipe: Recipe) -> float:
    """The rate of optimizer step `step` (from 0) of `steps`, as a share of the peak.

    Rises linearly over the first `recipe.warmup` of the steps, stays, and falls linearly to
    `recipe.final_rate` over the last `recipe.decay` (WSD, 2404.06395).
    """
    warm = round(recipe.warmup * steps)
    decaying = round(recipe.decay * steps)
    rise = (step + 1) / warm if step < warm else 1.0
    left = steps - 1 - step
    if decaying == 0 or left >= decaying:
        return rise
    return min(rise, recipe.final_rate + (1 - recipe.final_rate) * left / decaying)
