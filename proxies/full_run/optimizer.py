"""The optimizer of a full run: torch's AdamW on parameters that may be sharded, with clipping."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mixopt.core.errors import TrainingError
from mixopt.core.recipe import Recipe
from mixopt.proxies.optimizer import EPSILON


class FullOptimizer:
    """AdamW by the recipe: equal, within rounding, to `CohortOptimizer` of one proxy.

    Args:
        weights: by name, after they were sharded.
        decays: whether weight decay touches the weight of a name.
        recipe: betas, decay, clipping.
        peak_rate: peak learning rate.
        sum_over_processes: sums a tensor over all processes that hold shards; None where one
            process holds all.

    Raises:
        TrainingError: the recipe asks for Muon.
    """

    def __init__(
        self,
        weights: Mapping[str, nn.Parameter],
        decays: Callable[[str], bool],
        recipe: Recipe,
        peak_rate: float,
        sum_over_processes: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if recipe.optimizer == "muon":
            raise TrainingError(
                "Muon moves whole matrices, and a full run keeps each in pieces on its devices",
                where="recipe.optimizer",
                hint="Set promote.recipe.optimizer to adamw",
            )
        self._recipe, self._peak, self._sum = recipe, peak_rate, sum_over_processes
        self._weights = dict(weights)
        groups = [
            {"params": [w for n, w in weights.items() if decays(n) is kind], "weight_decay": decay}
            for kind, decay in ((True, recipe.weight_decay), (False, 0.0))
        ]
        self._adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=peak_rate,
            betas=(recipe.beta1, recipe.beta2),
            eps=EPSILON,
            fused=True,
        )
        for weight in self._weights.values():  # now, so that a checkpoint has where to be read into
            self._adamw.state[weight] = {
                "step": torch.zeros((), device=weight.device),
                "exp_avg": torch.zeros_like(weight, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(weight, requires_grad=False),
            }

    def zero_gradients(self) -> None:
        """Before the first micro-batch of a step."""
        self._adamw.zero_grad(set_to_none=True)

    @torch.no_grad()
    def step(self, rate_share: float, frozen: Collection[str] = ()) -> Tensor:
        """Clip and move; the gradient's norm over all shards before clipping, ().

        Args:
            rate_share: learning rate as a share of its peak.
            frozen: names of weights that stay as they are, with their moments: their gradients
                count for nothing.
        """
        for name, weight in self._weights.items():
            if name in frozen:
                weight.grad = None
            elif weight.grad is None:  # momentum and decay go on, as they do for a cohort
                weight.grad = torch.zeros_like(weight)
        gradients = [_local(w.grad) for w in self._weights.values() if w.grad is not None]
        norm = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(g) for g in gradients])
        )
        if self._sum is not None:
            norm = self._sum(norm.square()).sqrt()
        divisor = ((norm + 1e-6) / self._recipe.gradient_clip).clamp_min(1.0)
        torch._foreach_div_(gradients, divisor)
        for group in self._adamw.param_groups:
            group["lr"] = self._peak * rate_share
        self._adamw.step()
        found: Tensor = norm
        return found

    def state(self) -> dict[str, Tensor]:
        """`mean.<weight>` and `square.<weight>`, which lie as the weights do."""
        found: dict[str, Tensor] = {}
        for name, weight in self._weights.items():
            kept = self._adamw.state[weight]
            found |= {f"mean.{name}": kept["exp_avg"], f"square.{name}": kept["exp_avg_sq"]}
        return found

    def set_steps(self, steps: Mapping[str, int]) -> None:
        """After `state` was read into from a checkpoint: how often each weight has moved."""
        for name, weight in self._weights.items():
            self._adamw.state[weight]["step"].fill_(steps[name])


def _local(tensor: Tensor) -> Tensor:
    """What of it lies here."""
    if isinstance(tensor, DTensor):
        local: Tensor = tensor.to_local()
        return local
    return tensor
