"""AdamW for a cohort: every proxy has its own rate and its own gradient norm.

Shapes: K proxies; a parameter is (K, …), its slice k belongs to proxy k alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixopt.models.transformer import Transformer
from mixopt.recipe import Recipe

EPSILON = 1e-8


@dataclass(frozen=True)
class _Group:
    """Slices of parameters that share rate and decay; all views of the cohort's tensors."""

    proxy: int
    decay: float
    weights: list[Tensor]
    gradients: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]


class CohortOptimizer:
    """Fused AdamW over the proxies' slices of the parameters, with clipping per proxy.

    Matrices decay, norms and embeddings do not. The fused operator is called directly:
    `torch.optim` imports the compiler at the first use, seconds that every worker would pay.

    Args:
        model: the cohort; its gradients are allocated once and stay where they are.
        recipe: betas, decay, clipping.
        peak_rates: peak learning rate of each proxy.
    """

    def __init__(self, model: Transformer, recipe: Recipe, peak_rates: Sequence[float]) -> None:
        self.recipe, self.peak_rates = recipe, tuple(peak_rates)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        self._gradients = {n: p.grad for n, p in parameters.items() if p.grad is not None}
        self._means = {n: torch.zeros_like(p) for n, p in parameters.items()}
        self._squares = {n: torch.zeros_like(p) for n, p in parameters.items()}
        self._steps = torch.zeros((), device=model.embedding.device)
        self._groups = []
        for k in range(len(self.peak_rates)):
            for decays in (True, False):
                names = [n for n, p in parameters.items() if _decays(n, p) is decays]
                self._groups.append(
                    _Group(
                        k,
                        recipe.weight_decay if decays else 0.0,
                        [parameters[n].detach()[k] for n in names],
                        [self._gradients[n][k] for n in names],
                        [self._means[n][k] for n in names],
                        [self._squares[n][k] for n in names],
                    )
                )

    def zero_gradients(self) -> None:
        """Before the first micro-batch of a step."""
        torch._foreach_zero_(list(self._gradients.values()))

    @torch.no_grad()
    def step(self, rate_share: float) -> Tensor:
        """Clip and move every proxy; its gradient norm before clipping, (K,).

        A proxy whose gradient is not finite spoils its own weights and no other's.
        """
        gradients = list(self._gradients.values())
        norms = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]
        norm_K: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        scale_K = (self.recipe.gradient_clip / (norm_K + 1e-6)).clamp_max(1.0)
        for gradient in gradients:
            gradient.mul_(scale_K.view(-1, *[1] * (gradient.dim() - 1)))
        self._steps += 1
        for group in self._groups:
            torch._fused_adamw_(
                group.weights,
                group.gradients,
                group.means,
                group.squares,
                [],
                [self._steps] * len(group.weights),
                lr=self.peak_rates[group.proxy] * rate_share,
                beta1=self.recipe.beta1,
                beta2=self.recipe.beta2,
                weight_decay=group.decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )
        return norm_K

    def state(self) -> dict[str, Tensor]:
        """Moments by `mean.<parameter>` and `square.<parameter>`, and `steps`."""
        means = {f"mean.{name}": tensor for name, tensor in self._means.items()}
        squares = {f"square.{name}": tensor for name, tensor in self._squares.items()}
        return {**means, **squares, "steps": self._steps}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


def _decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay touches it: (K, D) norms and embeddings are left alone."""
    return parameter.dim() > 2 and name not in ("embedding", "head")
