"""The optimizer of a cohort: every proxy has its own rate and its own gradient norm.

Shapes: K proxies; a parameter is (K, …), its slice k belongs to proxy k alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixopt.core.recipe import Recipe
from mixopt.models.fusion import fused_for_any_shape
from mixopt.models.team import current
from mixopt.models.transformer import Transformer
from mixopt.proxies import muon

EPSILON = 1e-8


@dataclass(frozen=True)
class _Group:
    """Slices of parameters that share rate and decay; all views of the cohort's tensors."""

    proxy: int
    decay: float
    names: list[str]
    weights: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]


class CohortOptimizer:
    """Fused AdamW over the proxies' slices of the parameters, with clipping per proxy.

    Matrices decay, norms and embeddings do not. With `recipe.optimizer: muon` the matrices of
    attention and experts are moved by Muon instead. The fused operator is called directly:
    `torch.optim` imports the compiler at the first use, seconds that every worker would pay. On a
    GPU each parameter of all proxies is moved at once, by the same formula.

    Args:
        model: the cohort.
        recipe: optimizer, betas, decay, clipping.
        peak_rates: peak learning rate of each proxy.

    Attributes:
        all_at_once: whether a parameter of all proxies is moved as one: on a GPU.
    """

    def __init__(self, model: Transformer, recipe: Recipe, peak_rates: Sequence[float]) -> None:
        self.recipe, self.peak_rates = recipe, tuple(peak_rates)
        self._dtype, device = model.compute_dtype, model.device
        self.all_at_once = device.type == "cuda"
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._muon = [
            name
            for name, p in self._parameters.items()
            if recipe.optimizer == "muon" and muon.is_matrix(name, p)
        ]
        by_adam = {n: p for n, p in self._parameters.items() if n not in self._muon}
        self._means = {n: torch.zeros_like(p) for n, p in self._parameters.items()}
        self._squares = {n: torch.zeros_like(p) for n, p in by_adam.items()}
        self._steps = torch.zeros((), device=device)
        self._rates_K = torch.tensor(self.peak_rates, device=device)
        self._groups = []
        for k in range(len(self.peak_rates)):
            for decays in (True, False):
                names = [n for n, p in by_adam.items() if _decays(n, p) is decays]
                self._groups.append(
                    _Group(
                        k,
                        recipe.weight_decay if decays else 0.0,
                        names,
                        [by_adam[n].detach()[k] for n in names],
                        [self._means[n][k] for n in names],
                        [self._squares[n][k] for n in names],
                    )
                )

    def zero_gradients(self) -> None:
        """Before the first micro-batch of a step."""
        for parameter in self._parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self, rate_share: float | Tensor) -> Tensor:
        """Clip and move every proxy; its gradient norm before clipping, (K,).

        A proxy whose gradient is not finite spoils its own weights and no other's. The gradients
        are used up.

        Args:
            rate_share: learning rates as a share of their peaks; a tensor on a GPU alone, where a
                captured step reads it anew at every replay.
        """
        gradients = {
            name: torch.zeros_like(p) if p.grad is None else p.grad
            for name, p in self._parameters.items()
        }
        norms = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients.values()]
        norm_K: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        divisor_K = ((norm_K + 1e-6) / self.recipe.gradient_clip).clamp_min(1.0)
        self._steps += 1
        if self.all_at_once:
            self._step_of_all(gradients, divisor_K, rate_share)
            return norm_K
        assert isinstance(rate_share, float)

        def work(piece: int) -> None:
            if piece < len(self._groups):
                self._adamw(self._groups[piece], gradients, divisor_K, rate_share)
            else:
                name = self._muon[piece - len(self._groups)]
                self._orthogonal(name, gradients[name], divisor_K, rate_share)

        current().run(work, len(self._groups) + len(self._muon))
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

    def _step_of_all(
        self, gradients: Mapping[str, Tensor], divisor_K: Tensor, share: float | Tensor
    ) -> None:
        """A GPU takes each parameter of all proxies at once."""
        rate_K = self._rates_K * share
        for name, square in self._squares.items():
            parameter = self._parameters[name].detach()
            decay = self.recipe.weight_decay if _decays(name, parameter) else 0.0
            adamw(
                parameter.flatten(1),
                gradients[name].flatten(1),
                self._means[name].flatten(1),
                square.flatten(1),
                self._steps,
                rate_K.unsqueeze(1),
                divisor_K.unsqueeze(1),
                decay,
                self.recipe.beta1,
                self.recipe.beta2,
            )
        for name in self._muon:
            self._orthogonal(name, gradients[name], divisor_K, share)

    def _adamw(
        self, group: _Group, gradients: Mapping[str, Tensor], divisor_K: Tensor, share: float
    ) -> None:
        torch._fused_adamw_(
            group.weights,
            [gradients[name][group.proxy] for name in group.names],
            group.means,
            group.squares,
            [],
            [self._steps] * len(group.weights),
            lr=self.peak_rates[group.proxy] * share,
            beta1=self.recipe.beta1,
            beta2=self.recipe.beta2,
            weight_decay=group.decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor_K[group.proxy],  # clipping costs no pass of its own
        )

    def _orthogonal(
        self, name: str, gradient: Tensor, divisor_K: Tensor, share: float | Tensor
    ) -> None:
        clipped = gradient / divisor_K.view(-1, *[1] * (gradient.dim() - 1))
        muon.move(
            name,
            self._parameters[name].detach(),
            clipped,
            self._means[name],
            self._rates_K * share,
            self.recipe.weight_decay,
            self._dtype,
        )


@fused_for_any_shape
def adamw(
    weight_KX: Tensor,
    gradient_KX: Tensor,
    mean_KX: Tensor,
    square_KX: Tensor,
    steps: Tensor,
    rate_K1: Tensor,
    divisor_K1: Tensor,
    decay: float,
    beta1: float,
    beta2: float,
) -> None:
    """One step of AdamW (1711.05101) in place, each row at its own rate, as torch's fused one.

    Args:
        weight_KX: the weights of a parameter.
        gradient_KX: their gradient.
        mean_KX: running mean of gradients.
        square_KX: running mean of their squares.
        steps: how many there are with this one.
        rate_K1: learning rates.
        divisor_K1: what gradients are divided by, to clip them.
        decay: weight decay.
        beta1: decay of the first running mean.
        beta2: decay of the second.
    """
    gradient_KX = gradient_KX / divisor_K1
    weight_KX.mul_(1 - rate_K1 * decay)
    mean_KX.lerp_(gradient_KX, 1 - beta1)
    square_KX.mul_(beta2).addcmul_(gradient_KX, gradient_KX, value=1 - beta2)
    deviation_KX = square_KX.sqrt() / (1 - beta2**steps).sqrt() + EPSILON
    weight_KX.sub_(rate_K1 / (1 - beta1**steps) * mean_KX / deviation_KX)


def _decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay touches it: (K, D) norms and embeddings are left alone."""
    return parameter.dim() > 2 and name not in ("embedding", "head")
