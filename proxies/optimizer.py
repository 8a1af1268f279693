"""AdamW for a cohort: every proxy has its own rate and its own gradient norm.

Shapes: K proxies; a parameter is (K, …), its slice k belongs to proxy k alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mixopt.models.transformer import Transformer
from mixopt.recipe import Recipe


class CohortOptimizer:
    """Fused AdamW over the proxies' slices of the parameters, with clipping per proxy.

    Matrices decay, norms and embeddings do not.

    Args:
        model: the cohort; its gradients are allocated once and stay where they are.
        recipe: betas, decay, clipping.
        peak_rates: peak learning rate of each proxy.
    """

    def __init__(self, model: Transformer, recipe: Recipe, peak_rates: Sequence[float]) -> None:
        self.recipe, self.peak_rates = recipe, tuple(peak_rates)
        self.parameters = dict(model.named_parameters())
        self._slices: dict[str, nn.Parameter] = {}
        groups = []
        for k, peak in enumerate(self.peak_rates):
            for decays in (True, False):
                members = []
                for name, parameter in self.parameters.items():
                    if _decays(name, parameter) is not decays:
                        continue
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    row = nn.Parameter(parameter.detach()[k])
                    row.grad = parameter.grad[k]
                    self._slices[f"{name}.{k}"] = row
                    members.append(row)
                decay = recipe.weight_decay if decays else 0.0
                if members:
                    groups.append({"params": members, "lr": peak, "weight_decay": decay, "k": k})
        betas = (recipe.beta1, recipe.beta2)
        self._adam = torch.optim.AdamW(groups, betas=betas, eps=1e-8, fused=True)

    def zero_gradients(self) -> None:
        """Before the first micro-batch of a step."""
        torch._foreach_zero_([p.grad for p in self.parameters.values() if p.grad is not None])

    @torch.no_grad()
    def step(self, rate_share: float) -> Tensor:
        """Clip and move every proxy; its gradient norm before clipping, (K,).

        A proxy whose gradient is not finite spoils its own weights and no other's.
        """
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norms = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]
        norm_K: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        scale_K = (self.recipe.gradient_clip / (norm_K + 1e-6)).clamp_max(1.0)
        for gradient in gradients:
            gradient.mul_(scale_K.view(-1, *[1] * (gradient.dim() - 1)))
        for group in self._adam.param_groups:
            group["lr"] = self.peak_rates[group["k"]] * rate_share
        self._adam.step()
        return norm_K

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts by `<parameter>.<proxy>.<what>`; empty before the first step."""
        return {
            f"{name}.{key}": value
            for name, row in self._slices.items()
            for key, value in self._adam.state.get(row, {}).items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        for name, row in self._slices.items():
            found = {key: state.get(f"{name}.{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
            self._adam.state[row] = {
                key: value.to(row.device, copy=True)
                for key, value in found.items()
                if value is not None
            }


def _decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay touches it: (K, D) norms and embeddings are left alone."""
    return parameter.dim() > 2 and name not in ("embedding", "head")
